"""Adapters for servers that speak OpenAI's HTTP API, and their dialects."""
