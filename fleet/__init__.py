"""What a person types: the `fleet` command, and the Python clients `Client` and `AsyncClient`."""

from fleet.aio import AsyncClient
from fleet.client import Client, Job
from fleet.job import AsyncJob

__all__ = ["AsyncClient", "AsyncJob", "Client", "Job"]
