"""Tasks that do nothing, in other task queues; each module runs in that queue's own environment.

They import nothing of the product (Celery's takes our pool), and say when a round of tasks is done.
"""
