"""Texts of several jobs in one request to a backend that embeds: workers/embedding/packer.py holds it together."""
