"""A scripted backend and server: models that do what their name says, for tests and the demo."""
