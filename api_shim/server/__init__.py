"""The server's end of a connection: what a client may send and hold before any route sees it."""
