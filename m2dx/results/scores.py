"""scores.json of a run: the scores of its encoder and of the baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from m2dx.contract.atomic import replace_text
from m2dx.contract.components import Score
from m2dx.contract.errors import CheckpointError

PRETRAINED = "pretrained"
"""Name of the encoder itself among the baselines."""


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Writes scores as JSON: a list of objects with the fields of `Score`."""
    text = json.dumps([asdict(score) for score in scores], indent=1, allow_nan=False)
    replace_text(path, f"{text}\n")


def read_scores(path: Path) -> list[Score]:
    """Scores that `write_scores` wrote. Raises CheckpointError for another content."""
    try:
        return TypeAdapter(list[Score]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} must be scores written by m2dx, but cannot be read: {error}"
        ) from error
