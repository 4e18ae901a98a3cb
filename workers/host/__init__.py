"""What the host of a worker needs of it: a container's health check, a pod's deletion cost."""
