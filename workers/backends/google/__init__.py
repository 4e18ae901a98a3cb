"""Adapters for the Gemini API and Vertex AI."""
