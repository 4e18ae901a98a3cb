"""Webhooks: the API that manages them, and the deliverer that posts them."""
