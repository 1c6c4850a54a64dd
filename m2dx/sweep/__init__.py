"""Sweeps: a recipe trained at every point of a grid of overrides, and the scores of all of them as one table."""
