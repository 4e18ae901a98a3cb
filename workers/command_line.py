"""Celery's own command line, with our app and options."""

import sys

from celery.bin.base import CLIContext
from celery.bin.worker import worker as command

from workers.app import app_or_exit
from workers.settings import WorkerSettings


def run() -> None:
    """Run Celery's worker until it is stopped; raises SystemExit with its exit code."""
    app = app_or_exit()
    name = f"{WorkerSettings().worker_name}@%h"
    # Gossip and mingle tell workers of each other; ours meet in the relay.
    quiet = ["--without-gossip", "--without-mingle", "--heartbeat-interval", "60"]
    words = ["--loglevel", "INFO", "--hostname", name, *quiet, *sys.argv[1:]]
    # Not `worker_main`: it throws the exit code away (0 for a worker that broke down), and loads
    # every other command with its plugins, which is a quarter of the time that a start takes.
    context = CLIContext(app=app, no_color=False, workdir=None)
    sys.exit(command.main(args=words, prog_name="worker", obj=context, standalone_mode=False))
