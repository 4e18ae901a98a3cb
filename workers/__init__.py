"""Celery workers: each claims jobs from its queues and runs them at one backend."""
