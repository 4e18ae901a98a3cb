"""Packing: texts of several embed jobs in one request to a backend."""
