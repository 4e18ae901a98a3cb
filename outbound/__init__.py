"""Requests to addresses that clients name."""
