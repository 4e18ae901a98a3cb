"""Webhooks in Redis: who is to be told, of which ends, and what waits to be delivered."""
