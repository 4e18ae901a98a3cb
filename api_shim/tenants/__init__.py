"""Deletion of tenants: its routes, and the shim that carries it out."""
