"""Texts of several jobs in one request to a backend that embeds: packer.py holds it together."""
