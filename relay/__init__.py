"""The wire between shim and workers: the only home of Redis, both ends of each wire in one file."""
