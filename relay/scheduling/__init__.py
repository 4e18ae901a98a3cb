"""When jobs may start: pauses and run windows of queues."""
