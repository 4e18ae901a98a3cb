"""Requests that a schema makes up, sent with the keys of an admin and of two tenants."""
