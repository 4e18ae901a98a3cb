"""Compaction: a while after a job's end its log and record are rewritten to take less memory."""
