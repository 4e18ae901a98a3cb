"""A scripted backend and server for tests and the demo: the name of a model sets its response."""
