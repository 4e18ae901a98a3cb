"""What is written of a run: bench/RESULTS.md and the curves, from bench/results.json."""
