"""What tests start and share: a real Redis-protocol server, a by-hand worker."""
