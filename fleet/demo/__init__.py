"""The demo: its scenes, its sentences, and the small embedding model that it uses."""
