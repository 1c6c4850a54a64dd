"""The training step against one written plainly from the paper: clips per second, in pairs.

m2dx and baseline_step.py train the same model from the same weights on the same batches of real recordings, a step
each in turns. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import timing
import torch
from baseline_step import PlainM2D, PlainStep, Widths
from runs import Run, overrides_with, start, wait
from timing import Quartiles

from m2dx.contract.host import PluginHost
from m2dx.data.crops import Batch
from m2dx.model.m2d import M2D
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe

BASELINE = "baseline"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = timing.options_of(__doc__)
    add, at_least = parser.add_argument, timing.at_least
    add("--size", default="base", help="ViT size: tiny, small, base or large")
    add("--precisions", nargs="+", default=["fp32", "bf16"], help="of m2dx's step")
    add("--crop-seconds", type=float, default=2.08, help="length of a clip, s")
    add("--batch", type=at_least(1), default=8, help="clips per step")
    add("--warmup", type=at_least(0), default=1, help="steps of each before the timings")
    add("--repeats", type=at_least(1), default=5, help="timings of each")
    add("--steps", type=at_least(1), default=1, help="steps of one timing")
    add("--threads", type=at_least(1), help="CPU threads; default torch's choice")
    add("--clock", choices=list(CLOCKS), default="wall", help="cpu: the processor time of this process")
    return parser.parse_intermixed_args(arguments)


def recipe_of(options: argparse.Namespace, host: PluginHost, folder: str) -> Recipe:
    """Plain M2D on the quickstart's recordings: no tasks, no noise."""
    fields = {
        "output": folder,
        "tasks": "null",
        "noise": "null",
        "audio.crop_seconds": options.crop_seconds,
        "data.workers": 0,
        "model.size": options.size,
        "model.patch_size": "[16, 16]",
        "train.batch_size": options.batch,
        "train.threads": options.threads or "null",
    }
    return load_recipe(timing.RECIPE, overrides_with(fields, options.overrides), host=host)


def plain_twin(model: M2D, visible: int) -> PlainM2D:
    """The baseline's model with a copy of the weights of m2dx's."""
    sizes = (model.online.size, model.predictor.size)
    widths = (Widths(size.embed_dim, size.depth, size.num_heads) for size in sizes)
    grid = model.online.grid
    twin = PlainM2D(*widths, patch=grid.patch_size, grid=grid.shape, visible=visible)
    twin.load_state_dict(model.state_dict())
    return twin


class Contest:
    """Both models with the batches that they train on."""

    def __init__(self, run: Run, *, batches: int) -> None:
        self.run, self.trainer = run, run.trainer
        model = self.trainer.model.masked_model
        assert isinstance(model, M2D)
        self.batches = [batch.to(run.device) for batch in islice(run.batches, batches)]
        rates = self.trainer.rates
        self.plain = PlainStep(
            plain_twin(model, self.trainer.model.num_visible).to(run.device),
            learning_rate=rates.learning_rate(0),
            ema_decay=rates.ema_decay(0),
            fp16=run.device.type == "cuda",
        )

    def step(self, batch: Batch, precision: str) -> None:
        """A step of the baseline, or of m2dx in a precision, from the waveforms on."""
        if precision == BASELINE:
            (logmel,), _ = self.trainer.model.views(batch)
            self.plain(logmel, batch.ids_shuffle)
            return
        train = self.trainer.recipe.train.model_copy(update={"precision": precision})
        self.trainer.recipe = self.trainer.recipe.model_copy(update={"train": train})
        self.trainer.train_step(iter([batch]))

    def clips_per_second(self, precision: str, first: int, steps: int, clock: str = "wall") -> float:
        """The speed of some steps, from a batch on."""
        now = CLOCKS[clock]
        wait(self.run.device)
        started = now()
        for batch in islice(cycle(self.batches), first, first + steps):
            self.step(batch, precision)
        wait(self.run.device)
        return steps * len(self.batches[0].inputs) / (now() - started)

    @torch.no_grad()
    def losses(self) -> Mapping[str, float]:
        """The loss of both on the first batch, in float32."""
        batch, model = self.batches[0], self.trainer.model
        (logmel,), _ = model.views(batch)
        return {
            "m2dx": float(model(batch).total),
            BASELINE: float(self.plain.model(logmel, batch.ids_shuffle)),
        }


def measure(options: argparse.Namespace) -> timing.Tables:
    """The speed of each contestant, and the loss of both models."""
    host, contestants = PluginHost.discover(), [BASELINE, *options.precisions]
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(start(recipe_of(options, host, folder), host), batches=4)
        losses = contest.losses()
        for precision in contestants:
            contest.clips_per_second(precision, 0, options.warmup)
        speeds = timing.in_turns(
            contestants,
            options.repeats,
            lambda name, repeat: contest.clips_per_second(name, repeat, options.steps, options.clock),
        )
    return {
        "m2dx's step against a plain one": [
            {
                "step": name,
                "clips/s": Quartiles.of(samples),
                "against the baseline": Quartiles.ratio(samples, speeds[BASELINE]),
            }
            for name, samples in speeds.items()
        ],
        "Loss of the first batch, float32": [{name: f"{loss:.6f}" for name, loss in losses.items()}],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; 1 where m2dx refuses a setting."""
    options = parse(arguments)
    return timing.give(options, lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
