"""`m2dx classify`: labels of audio files, by a saved classifier or one that is fitted to labelled clips."""
