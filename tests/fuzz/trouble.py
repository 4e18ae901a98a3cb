"""What a fleet's processes say of faults that no answer shows: they died, or logged a traceback."""

import logging
from collections.abc import Sequence

from support.processes import Process
from typing_extensions import override


class Trouble(logging.Handler):
    """Watches the logs of a shim in this process, and of workers in others."""

    def __init__(self, workers: Sequence[Process]) -> None:
        """Watch these workers, and errors that are logged here once this is a handler."""
        super().__init__(logging.ERROR)
        self._workers = workers
        self._read = {worker.log: 0 for worker in workers}
        self._told: list[str] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._told.append(f"the shim has logged: {self.format(record)}")

    def found(self) -> str:
        """What is new since the last call; empty: nothing."""
        told, self._told = self._told, []
        for worker in self._workers:
            if worker.popen.poll() is not None:
                told.append(f"a worker has died: {worker.text()[-1500:]}")
            with worker.log.open(errors="replace") as log:
                log.seek(self._read[worker.log])
                text = log.read()
                self._read[worker.log] = log.tell()
            if "Traceback" in text:
                told.append(f"a worker has logged: {text[text.index('Traceback') :][:1500]}")
        return "\n".join(told)
