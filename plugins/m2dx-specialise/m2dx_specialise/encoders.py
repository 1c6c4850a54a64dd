"""The encoders of a search, by their names: what was at hand, networks that nobody trained, and those of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import m2dx
from m2dx.contract.components import ClipEncoder
from m2dx.contract.package import find_encoder
from m2dx.evaluation.features import MeanLogMel
from m2dx.recipe.schema import AudioSection
from m2dx.training.distributed import pick_device
from m2dx_specialise.judge import PLAIN
from m2dx_specialise.state import State

Scorer = Callable[[ClipEncoder], dict[str, Any]]
"""Accuracy of an encoder, in [0, 1]; where there are labels the loss, the settings of its regression, and seconds for
classifiers of all folds."""


def path_of(name: str, folder: Path, starts: Sequence[str] = ()) -> Path:
    """The encoder of a run or a random network of a search, or one of the starts."""
    path = folder / "runs" / name.replace(" ", "-") / "encoder"
    return find_encoder(name) if name in starts else path


def encoder_of(name: str, folder: Path, starts: Sequence[str] = ()) -> Any:
    """A baseline, or the encoder of a run of a search."""
    if name == PLAIN:
        return MeanLogMel(AudioSection()).eval()
    return m2dx.load_encoder(path_of(name, folder, starts))


def loaded(name: str, state: State) -> Any:
    """The same, on the device that encodes."""
    return encoder_of(name, state.folder, state.request.starts).to(pick_device("auto"))


def scored(name: str, state: State, score: Scorer) -> dict[str, Any]:
    """The score of an encoder, with the seconds that it took."""
    encoder, before = loaded(name, state), state.seconds
    return {**score(encoder), "seconds": round(state.seconds - before, 2)}
