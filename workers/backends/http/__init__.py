"""HTTP client of the backends: connections, errors, decoders, forms."""
