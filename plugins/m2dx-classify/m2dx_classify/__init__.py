"""`m2dx classify`: labels of audio files, by a saved classifier or one that is fitted to labelled clips."""

from pathlib import Path

STATISTICS = Path("log-mel statistics")
"""In the place of an encoder: none."""
