"""Ollama's API under /api: each endpoint a view of jobs, so that its clients reach any backend."""
