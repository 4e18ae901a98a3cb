"""Ollama's API under /api: translators and thin routes over jobs of any backend."""
