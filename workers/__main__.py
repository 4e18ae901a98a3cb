"""Starts a worker: `python -m workers` serves the backend that FLEET_WORKER_BACKEND names."""

import gc
import signal
import sys


def main() -> None:
    """Run Celery's worker with our app; extra arguments go to Celery as they are."""
    # Until Celery has its own handlers: Ctrl-C while modules are imported is no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # nothing is garbage while modules are imported
    # The command lines of Celery and httpx would import it, and Rich, for colours: 0.2 s a start.
    sys.modules["pygments"] = None  # type: ignore[assignment]
    from workers.command_line import run  # noqa: PLC0415

    del sys.modules["pygments"]
    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
