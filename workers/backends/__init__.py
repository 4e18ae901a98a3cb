"""Backend adapters, one folder per wire format: requests become HTTP, responses become events."""
