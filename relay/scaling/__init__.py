"""How many workers the fleet wants."""
