"""The Python clients: `AsyncClient`, and `Client`, which delegates to it."""
