"""Servers on which each process of a fleet is the user of Redis that it should be.

`FLEET_TEST_ACL=1 pytest tests/e2e` runs any test so: its shims and workers are users of least
rights, the test itself is the default user, and a server that refused them something fails it.
"""

import os
from pathlib import Path

from relay.access.redis_users import aclfile, digest_of, redis_users

SHIM, WORKER, ADMIN = (each.name for each in redis_users())
_ALL = "user default on nopass resetkeys ~* resetchannels &* +@all\n"


def server_options(folder: Path, *, with_default: bool) -> tuple[str, ...]:
    """Options of a server with our users, whose passwords are their names."""
    text = aclfile({name: digest_of(name) for name in (SHIM, WORKER, ADMIN)})
    if with_default:
        text = _ALL + text.partition("\n")[2]
    file = folder / "users.acl"
    file.write_text(text)
    return "--aclfile", str(file)


def as_user(url: str, user: str) -> str:
    """The URL for a user of a server with our users."""
    return url.replace("redis://", f"redis://{user}:{user}@", 1)


def is_wanted() -> bool:
    """Whether all tests are to run with these users."""
    return bool(os.environ.get("FLEET_TEST_ACL"))


def user_url(url: str, user: str) -> str:
    """The URL for a process of a test: its own user's, where that is wanted."""
    return as_user(url, user) if is_wanted() and "@" not in url else url
