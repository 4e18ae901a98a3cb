"""Following a job over HTTP: event streams, drop-in responses, queue position, shutdown."""
