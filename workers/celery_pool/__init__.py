"""An asyncio worker pool for Celery, and the parts of Celery's consumer that it replaces."""
