"""Turns of work that many callers ask for at the same time."""
