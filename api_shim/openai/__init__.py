"""OpenAI's HTTP API under /v1, as its clients know it: views of jobs, a family of paths a file."""
