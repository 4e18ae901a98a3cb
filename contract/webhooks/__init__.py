"""Webhooks: where the ends of jobs and batches are posted, and what is posted."""
