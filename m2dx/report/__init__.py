"""A run's folder as pictures and a page."""
