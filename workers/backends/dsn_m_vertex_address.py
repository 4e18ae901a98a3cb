"""Where Vertex lives: a location names a host, so `vertex://project@europe-west4` needs no URL."""

from typing import Any, Final
from urllib.parse import urlsplit

VERSION_PATH: Final = "/v1beta1"
GLOBAL: Final = "global"
_MULTI_REGIONS: Final = frozenset({"us", "eu"})


def host_of(location: str) -> str:
    """The host that serves a location (python-genai, `_api_client.py`)."""
    if location == GLOBAL:
        return "aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def located(url: str, options: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Address and options once the location is in both; a host without a dot is a location."""
    host = urlsplit(url).hostname or ""
    location = options.get("location")
    if not host or ("." not in host and host != "localhost" and ":" not in host):
        location = location or host or GLOBAL
        url = f"https://{host_of(location)}{VERSION_PATH}"
    return url, {**options, "location": location or GLOBAL}


def complete(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Vertex backend's configuration, with the address that they mean."""
    url, options = located(str(fields.get("url") or ""), dict(fields.get("options") or {}))
    return {**fields, "url": url, "options": options}
