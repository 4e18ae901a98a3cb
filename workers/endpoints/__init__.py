"""The endpoints of one backend: pool, circuit breakers, probes, broadcast."""
