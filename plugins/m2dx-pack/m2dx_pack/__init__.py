"""`m2dx pack`: audio in a few large tar files, which the core's data set `packed` reads."""
