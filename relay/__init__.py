"""What shim and workers exchange through Redis: jobs, queues, logs, batches and the roster."""
