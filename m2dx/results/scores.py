"""evaluation.json of a run: the scores of its encoder and of the baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from m2dx.contract.components import Score
from m2dx.contract.errors import CheckpointError
from m2dx.evaluation.runner import EncoderScore


def write_scores(scores: Sequence[EncoderScore], path: Path) -> None:
    """Writes scores as JSON: a list of objects with `encoder` and the fields of `Score`."""
    rows = [{"encoder": entry.encoder, **asdict(entry.score)} for entry in scores]
    path.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_scores(path: Path) -> list[EncoderScore]:
    """Scores that `write_scores` wrote. Raises CheckpointError for another content."""
    adapter = TypeAdapter(Score)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [
            EncoderScore(
                row["encoder"], adapter.validate_python({k: v for k, v in row.items() if k != "encoder"})
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise CheckpointError(
            f"{path} must be scores written by m2dx, but cannot be read: {error}"
        ) from error
