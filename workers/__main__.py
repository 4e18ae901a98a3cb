"""Starts a worker: `python -m workers` serves the backend that FLEET_WORKER_BACKEND names."""

import sys

from workers.app import create_app
from workers.backends.dsn import DsnError
from workers.settings import WorkerSettings


def main() -> None:
    """Run Celery's worker with our app; extra arguments go to Celery as they are."""
    try:
        app = create_app()
    except DsnError as error:
        sys.exit(f"worker: {error}")
    name = f"{WorkerSettings().worker_name}@%h"
    # Gossip and mingle tell workers of each other; ours meet in the relay.
    quiet = ["--without-gossip", "--without-mingle"]
    app.worker_main(["worker", "--loglevel", "INFO", "--hostname", name, *quiet, *sys.argv[1:]])


if __name__ == "__main__":
    main()
