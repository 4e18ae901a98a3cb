"""What a person types: the `fleet` command, and the Python clients `Client` and `AsyncClient`."""
