"""What the fleet counts together, and what Redis knows of its state at a moment."""
