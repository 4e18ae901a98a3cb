"""One file a backend: each turns our requests into its wire format and its answers into events."""
