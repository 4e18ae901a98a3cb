"""Batches: files of requests that any shim runs through the queue, a window of jobs at a time."""
