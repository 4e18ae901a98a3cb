"""HTTP plumbing that every surface shares: authentication, bodies, headers, problems, OpenAPI."""
