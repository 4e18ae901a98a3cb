"""Adapters for image servers: AUTOMATIC1111's API and stable-diffusion.cpp."""
