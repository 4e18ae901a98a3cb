"""A soak of the whole fleet under faults from a seeded schedule: `make chaos MINUTES=10 SEED=1`."""
