"""Aliases: names that stand for models, with parameters and fallbacks."""
