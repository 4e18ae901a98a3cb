"""`fleet up`: a whole fleet on this machine, as supervised processes."""
