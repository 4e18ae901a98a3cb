"""What a person types: the `fleet` command, and the Python clients `Client` and `AsyncClient`."""

from fleet.client.async_client import AsyncClient
from fleet.client.job import AsyncJob
from fleet.client.sync_client import Client, Job

__all__ = ["AsyncClient", "AsyncJob", "Client", "Job"]
