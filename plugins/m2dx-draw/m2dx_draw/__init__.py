"""`m2dx draw`: pictures of what a model does, as PNG or SVG."""
