"""HTTP in, HTTP out: parse a request, call the relay, render what it answers."""
