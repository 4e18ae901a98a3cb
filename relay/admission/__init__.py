"""Admission: what is written of a new job, and whether it may enter its queue."""
