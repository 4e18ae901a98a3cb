"""Lists of jobs that are read from the queues."""
