"""Access tokens of Google Cloud, from a service account file or the machine's credentials.

google-auth blocks while it fetches a token, so it runs in a thread; one task refreshes, others
wait for it. A token is used until shortly before it expires. Needs the extra `vertex`.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import google.auth
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from contract.errors import (
    AuthenticationRefused,
    BackendError,
    BackendUnreachable,
)
from telemetry.plain_text import redacted
from workers.backends.http.error_table import MESSAGE_LIMIT

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
REFRESH_S: Final = 30.0
_HEADER: Final = "authorization"
_SCHEME: Final = "Bearer "


class GoogleToken:
    """Signs requests with a bearer token of Google Cloud (`Signer` of http/client.py)."""

    def __init__(self, path: Path | None, *, quota_project: str | None = None) -> None:
        """`path` is a service account's file; without it, the application default credentials."""
        self._path = path
        self._quota_project = quota_project
        self._credentials: Credentials | None = None
        self._lock = asyncio.Lock()

    async def sign(self, refused: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Headers with a valid token, another one than in `refused`; raises as `token` does."""
        old = refused[_HEADER].removeprefix(_SCHEME) if refused else None
        token = await self.token(refused=old)
        project = self._quota_project or getattr(self._credentials, "quota_project_id", None)
        paid = {"x-goog-user-project": project} if project else {}
        return {_HEADER: f"{_SCHEME}{token}", **paid}

    async def token(self, *, refused: str | None = None) -> str:
        """A valid token other than `refused`.

        Raises BackendUnreachable for a transient failure, else AuthenticationRefused.
        """
        async with self._lock:
            known = self._credentials
            if known is None or not known.valid or known.token == refused:
                with _google_errors():
                    self._credentials = known = await asyncio.to_thread(self._refreshed, known)
            return str(known.token)

    def _refreshed(self, known: Credentials | None) -> Credentials:
        """Runs in a thread: reads files and sends requests."""
        credentials: Any = known or self._loaded()
        credentials.refresh(partial(Request(), timeout=REFRESH_S))
        return cast("Credentials", credentials)

    def _loaded(self) -> Credentials:
        if self._path is None:
            found, _ = google.auth.default(scopes=SCOPES)
            return found
        account: Any = service_account.Credentials
        return cast(
            "Credentials", account.from_service_account_file(str(self._path), scopes=SCOPES)
        )


@contextmanager
def _google_errors() -> Iterator[None]:
    """Raise errors of google-auth, and of an invalid key file, as BackendError."""
    try:
        yield
    except (GoogleAuthError, OSError, ValueError) as error:
        raise _to_backend_error(error) from error


def _to_backend_error(error: Exception) -> BackendError:
    reason = redacted(" ".join(str(error).split()))[:MESSAGE_LIMIT]
    is_transient = isinstance(error, RefreshError) and error.retryable
    if isinstance(error, TransportError) or is_transient:
        return BackendUnreachable(f"no Google access token now: {reason}")
    return AuthenticationRefused(f"no Google access token: {reason}")
