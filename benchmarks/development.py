"""Writes lists to choose settings by: LIST_dev.csv beside each LIST.csv, without a clip of the test part.

    python benchmarks/development.py LIST.csv [LIST.csv ...] [--by-valid LIST.csv ...]

They have no splits, so that a recipe divides them into folds of whole groups (`folds: 3`). Of lists with folds, the
last two of five are left out. `--by-valid` is for lists whose groups are too few for folds, or not known: there the
validation part is the test part. benchmarks/recipes/development_tasks.yaml scores the ten tasks so.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

DROPPED_FOLDS = ("4", "5")
RENAMED = {"train": "train", "valid": "test"}


def development_list(path: Path, *, by_valid: bool) -> int:
    """Writes the list that goes with `path`; how many clips it has."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next((name for name in ("split", "fold") if rows and name in rows[0]), None)
    if column is None:
        sys.exit(f"{path} must have clips and a column `split` or `fold`")
    rows = [row for row in rows if row[column] not in ("test", *DROPPED_FOLDS)]
    for row in rows:
        split = row.pop(column)
        if by_valid:
            row["split"] = RENAMED[split]
    with path.with_name(f"{path.stem}_dev.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the lists, and prints how many clips each has."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", nargs="*", type=Path, default=[], metavar="LIST.csv")
    parser.add_argument("--by-valid", nargs="+", type=Path, default=[], metavar="LIST.csv")
    options = parser.parse_args(arguments)
    for path in (*options.lists, *options.by_valid):
        print(f"{path}: {development_list(path, by_valid=path in options.by_valid)} clips")


if __name__ == "__main__":
    main()
