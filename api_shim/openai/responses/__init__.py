"""OpenAI's Responses API under /v1/responses: every response is a view of a job."""
