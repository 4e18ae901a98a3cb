"""Measurements: what the fleet costs, as ratios to calling a backend directly and to peers."""
