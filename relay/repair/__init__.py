"""Keys of a wrong type, which another program has written: set aside, and made anew."""
