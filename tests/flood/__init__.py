"""Floods of a shim: what a hostile client sends, and what the shim and other clients feel."""
