"""The nouns that cross a process boundary: requests, events, errors, names. No I/O happens here."""
