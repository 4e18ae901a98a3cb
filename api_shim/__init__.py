"""The HTTP server: parses requests, calls the relay, renders responses."""
