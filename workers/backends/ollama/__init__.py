"""The adapter for Ollama's native API."""
