"""`m2dx new-plugin`: a plugin that works, to start from."""
