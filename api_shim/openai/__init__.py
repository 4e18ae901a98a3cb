"""OpenAI's HTTP API under /v1: translators and thin routes over jobs, one file per resource."""
