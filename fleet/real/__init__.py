"""A real llama.cpp server and a tiny model: proof that the fleet speaks to the real thing."""
