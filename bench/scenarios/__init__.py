"""What `make bench` measures, a module a scenario; each adds its figures to the stage."""
