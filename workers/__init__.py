"""Queue in, backend out: Celery workers that take jobs and talk to the backend beside them."""
