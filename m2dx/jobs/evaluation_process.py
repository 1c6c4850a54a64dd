"""The process that scores one checkpoint while its run trains.

    python -m m2dx.jobs.evaluation_process STEP ENCODER RUN PARENT DEVICE THREADS

It writes RUN/scores_by_step.jsonl and a record per score. This module imports nothing heavy at its top, since it must
watch its parent before it imports torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

from m2dx.contract.parent import end_with_parent

NICENESS = 10  # added to the parent's, so that training goes first if both need the same processors


def score_checkpoint(step: int, encoder: Path, run: Path, *, device: str, threads: int) -> None:
    """Scores the encoder's weights after a step with the recipe in the run's folder."""
    import torch

    from m2dx.contract.host import PluginHost
    from m2dx.encoder.audio import load_any_encoder
    from m2dx.recipe.loading import load_recipe
    from m2dx.results.scoring import Scoring

    torch.set_num_threads(threads)
    host = PluginHost.discover()
    recipe = load_recipe(run / "recipe.yaml", [f"evaluation.device={device}"], host=host)
    network = load_any_encoder(encoder, host)
    Scoring.of(recipe, host, network).run_step(network, step, run)


def main() -> None:
    """Scores what the command line names; if that fails, exit code 1 and the reason on stderr."""
    step, encoder, run, parent, device, threads = sys.argv[1:]
    end_with_parent(int(parent))
    with contextlib.suppress(OSError, AttributeError):  # Windows has none
        os.nice(NICENESS)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    from m2dx.contract.errors import M2dxError

    try:
        score_checkpoint(int(step), Path(encoder), Path(run), device=device, threads=int(threads))
    except M2dxError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
