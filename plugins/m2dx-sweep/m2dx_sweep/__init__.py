"""`m2dx sweep`: a recipe trained at every point of a grid of overrides, and its scores as one table."""
