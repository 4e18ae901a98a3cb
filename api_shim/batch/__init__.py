"""Batches: files of requests, driven through the queue a window at a time, by any shim."""
