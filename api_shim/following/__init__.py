"""Following a job over HTTP: event streams, drop-in answers, queue position, shutdown."""
