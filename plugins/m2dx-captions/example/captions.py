"""Writes captions of the notes in examples/sounds/instrument.csv, for training and validation: `captions.py OUTPUT`."""

import csv
import sys
from pathlib import Path

SOUNDS = Path(__file__).parents[3] / "examples" / "sounds"
LOW, HIGH = 52, 72  # MIDI notes: E3 and C5


def caption(label: str, note: int) -> str:
    """Such as `a low note of the brass`."""
    height = "low" if note < LOW else "high" if note > HIGH else "middle"
    return f"a {height} note of the {label.replace('_', ' ')}"


with (SOUNDS / "instrument.csv").open(encoding="utf-8", newline="") as file:
    notes = [row for row in csv.DictReader(file) if row["split"] == "train"]
with Path(sys.argv[1]).open("w", encoding="utf-8", newline="") as file:
    table = csv.writer(file)
    table.writerow(["path", "caption"])
    for row in notes:
        note = int(Path(row["path"]).stem.removeprefix(row["label"]).split("_")[2])
        table.writerow([SOUNDS / row["path"], caption(row["label"], note)])
