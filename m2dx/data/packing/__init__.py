"""`m2dx pack`: data sets as a few large tar files, in WebDataset's format, for any disk to read fast."""
