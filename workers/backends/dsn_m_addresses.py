"""Several addresses of one backend: `ollama://a:11434,b:11434` in a DSN, `urls` in a table."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

MOST: Final = 32
"""Addresses of one backend."""
_AUTHORITY: Final = re.compile(r"(?P<head>[^:/?#]*://(?:[^/?#]*@)?)(?P<hosts>[^/?#]*)(?P<rest>.*)")


def one_each(dsn: str) -> list[str]:
    """A DSN for each host, with the same key, path and options; itself if it names one host.

    Raises ValueError for a comma beside which no host stands.
    """
    found = _AUTHORITY.fullmatch(dsn)
    if found is None or "," not in found["hosts"]:
        return [dsn]
    hosts = found["hosts"].split(",")
    if not all(hosts):
        raise ValueError("beside a comma stands no host")
    return [found["head"] + host + found["rest"] for host in hosts]


def all_completed(fields: Mapping[str, Any], default: str, path: str) -> tuple[str, ...]:
    """The addresses in a backend's fields `urls` or `url`, or the default; raises ValueError."""
    url = [str(fields["url"])] if fields.get("url") else []
    given = [str(each) for each in fields.get("urls") or url or [default]]
    if url and completed(url[0], path) != completed(given[0], path):
        raise ValueError("urls: write all addresses there, and none into url")
    return tuple(completed(each, path) for each in given)


def completed(url: str, path: str) -> str:
    """The base address with the path that its type has by default; raises ValueError."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("url holds a key; write it into the field key")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("url must look like http://host:port")
    return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}{path}"


def demand_different(urls: Sequence[str]) -> None:
    """Refuse addresses that occur twice, and too many; raises ValueError."""
    if len(set(urls)) != len(urls):
        raise ValueError("an address stands there twice")
    if len(urls) > MOST:
        raise ValueError(f"more than {MOST} addresses; give the others a backend of their own")
