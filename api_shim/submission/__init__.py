"""From a validated request to a queued job: selection of the backend, then the enqueue."""
