"""celery_pool."""
