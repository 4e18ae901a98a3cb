"""What the container of a worker shows of it: a health file, and the deletion cost of its pod.

The file is touched with every report. Its age says whether the worker works: the event loop runs
and Redis has accepted a report. A check of the age costs a container nothing, whereas a process
that asks Redis would cost it a second of a core. The file is removed when the worker leaves.

When a Deployment shrinks, Kubernetes ends the pods with the lowest cost first, so idle workers go
before busy ones. The cost is an annotation that the pod writes about itself:
`controller.kubernetes.io/pod-deletion-cost` (kubernetes.io/docs, ReplicaSet, "Pod deletion cost").
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp

from workers.settings import WorkerSettings

_log = logging.getLogger(__name__)

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
_EVERY_S: Final = 5.0
_TIMEOUT_S: Final = 10.0
_PATCH: Final = "application/merge-patch+json"


class HealthFile:
    """The file of one worker; does nothing if no path is set."""

    def __init__(self, path: Path | None) -> None:
        """Write to this path; the folder must exist."""
        self._path = path
        self._has_failed = False

    def touch(self, text: str) -> None:
        """Write the text and the time; an error is logged once, and raises nothing."""
        if self._path is None:
            return
        try:
            self._path.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            if not self._has_failed:
                _log.warning("FLEET_HEALTH_FILE cannot be written: %s", error)
            self._has_failed = True

    def remove(self) -> None:
        """Remove the file, if it is there; raises nothing."""
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("FLEET_HEALTH_FILE cannot be removed: %s", error)


class PodCost:
    """Keeps the annotation of this worker's pod at the number of its jobs."""

    def __init__(self, settings: WorkerSettings, jobs: Callable[[], int]) -> None:
        """`jobs` returns how many jobs the worker holds now."""
        self._settings = settings
        self._jobs = jobs
        self._written: int | None = None
        self._has_failed = False

    async def run(self) -> None:
        """Write each change, at most every five seconds, until cancelled.

        Returns at once if FLEET_POD_NAME is not set. An error is logged once, and tried again.
        """
        while self._settings.pod_name is not None:
            try:
                await self.write()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                if not self._has_failed:
                    _log.warning("the deletion cost of this pod is not written: %s", error)
                self._has_failed = True
            await asyncio.sleep(_EVERY_S)

    async def write(self) -> None:
        """Write the cost if it has changed; raises ClientError, OSError, TimeoutError."""
        cost = self._jobs()
        if cost == self._written:
            return
        account, settings = self._settings.service_account, self._settings
        # Read each time: the token is replaced every hour.
        token = await asyncio.to_thread((account / "token").read_text)
        path = f"/api/v1/namespaces/{settings.pod_namespace}/pods/{settings.pod_name}"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as http,
            http.patch(
                f"{settings.kubernetes_url}{path}",
                json={"metadata": {"annotations": {ANNOTATION: str(cost)}}},
                headers={"Authorization": f"Bearer {token.strip()}", "Content-Type": _PATCH},
                ssl=_trusted(account / "ca.crt"),
            ) as response,
        ):
            response.raise_for_status()
        self._written, self._has_failed = cost, False


def _trusted(authority: Path) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=str(authority)) if authority.exists() else True
