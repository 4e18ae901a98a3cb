"""HTTP parts that every surface shares: authentication, bodies, headers, problems, OpenAPI."""
