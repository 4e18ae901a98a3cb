"""The state of the whole fleet, read once a second for everybody who watches it."""
