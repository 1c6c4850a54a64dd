"""What a data set says of its files."""

import m2dx


def line_with(text: str, dataset: m2dx.Dataset) -> str:
    """The one line of `missing()` that has the text."""
    (line,) = [line for line in dataset.missing() if text in line]
    return line
