"""Rerank, score and Cohere's embeddings: Cohere's and Jina's API as views of jobs."""
