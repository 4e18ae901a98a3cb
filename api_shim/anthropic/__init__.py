"""Anthropic's Messages API as a view of jobs: pure translators and thin routes."""
