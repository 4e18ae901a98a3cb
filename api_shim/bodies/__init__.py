"""What the bodies of requests may hold, and how much of them a shim holds at once."""
