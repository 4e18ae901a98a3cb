"""Deletion of everything that a tenant has, with a receipt (docs/adr/0063)."""
