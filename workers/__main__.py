"""Starts a worker: `python -m workers` serves the backend that FLEET_WORKER_BACKEND names."""

import gc
import signal
import sys


def main() -> None:
    """Run a worker until it is stopped; extra arguments are passed on to Celery."""
    # Until Celery has its own handlers: Ctrl-C while modules are imported prints no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # nothing is garbage while modules are imported
    # Celery's command line would import it for colours: 0.2 s a start.
    sys.modules["pygments"] = None  # type: ignore[assignment]
    from workers.app import app_or_exit, run_worker  # noqa: PLC0415

    del sys.modules["pygments"]
    gc.freeze()
    # Thousands of streams have a million objects that live: the interpreter's thresholds make it
    # look at all of them over and over, which took half of such a worker's time (bench/NOTES.md).
    gc.set_threshold(20_000, 20, 20)
    gc.enable()
    sys.exit(run_worker(app_or_exit(), sys.argv[1:]))


if __name__ == "__main__":
    main()
