"""The training step against one written plainly from the paper: clips per second, in pairs.

m2dx and baseline_step.py train the same model from the same weights on the same batches of real recordings, a step
each in turns. `--measures` also times m2dx's step with one measure left out at a time. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from baseline_step import PlainM2D, PlainStep, Widths
from baseline_tables import markdown
from left_out import MEASURES
from rich.console import Console
from step import ROOT, machine_and_versions, quartiles, words
from step_measures import Run, start, wait

from m2dx.contract.errors import M2dxError
from m2dx.contract.host import PluginHost
from m2dx.data.crops import Batch
from m2dx.model.m2d import M2D
from m2dx.model.vit import ViTSize
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe

RECIPE = "recipes/quickstart.yaml"
BASELINE = "baseline"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Contestant:
    """One kind of step: the baseline's, or m2dx's in a precision, perhaps without one of its measures."""

    precision: str
    without: str | None = None

    def __str__(self) -> str:
        return self.precision if self.without is None else f"{self.precision} without {self.without}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="base", help="ViT size: tiny, small, base or large")
    parser.add_argument("--precisions", type=words, default=["fp32", "bf16"], help="of m2dx's step")
    parser.add_argument("--crop-seconds", type=float, default=2.08, help="length of a clip, s")
    parser.add_argument("--batch", type=int, default=8, help="clips per step")
    parser.add_argument("--warmup", type=int, default=1, help="steps of each before the timings")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each")
    parser.add_argument("--steps", type=int, default=1, help="steps of one timing")
    parser.add_argument("--threads", type=int, help="CPU threads; default torch's choice")
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: the processor time of this process, for one thread on a busy machine",
    )
    parser.add_argument(
        "--measures", type=words, default=[], help=f"left out one at a time: all, or {', '.join(MEASURES)}"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="more recipe fields, as of `m2dx train`"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.measures == ["all"]:
        options.measures = list(MEASURES)
    if unknown := [name for name in options.measures if name not in MEASURES]:
        parser.error(f"--measures must be of {', '.join(MEASURES)}, but has {', '.join(unknown)}")
    for name, least in {"batch": 1, "steps": 1, "warmup": 0, "repeats": 1, "threads": 1}.items():
        if getattr(options, name) is not None and getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, but is {getattr(options, name)}")
    return options


def recipe_of(options: argparse.Namespace, host: PluginHost, folder: str) -> Recipe:
    """Plain M2D on the quickstart's recordings: no tasks, no noise, statistics given."""
    overrides = {
        "output": folder,
        "tasks": "null",
        "noise": "null",
        "audio.crop_seconds": options.crop_seconds,
        "data.mean": -7.1,
        "data.std": 4.2,
        "data.workers": 0,
        "model.size": options.size,
        "model.depth": "null",
        "model.patch_size": "[16, 16]",
        "model.predictor": "{embed_dim: 512, depth: 8, num_heads: 16}",
        "model.mask_ratio": 0.7,
        "train.batch_size": options.batch,
        "train.threads": options.threads or "null",
    }
    lines = [f"{key}={value}" for key, value in overrides.items()]
    return load_recipe(ROOT / RECIPE, [*lines, *options.overrides], host=host)


def plain_twin(model: M2D, visible: int) -> PlainM2D:
    """The baseline's model with a copy of the weights of m2dx's."""

    def widths(size: ViTSize) -> Widths:
        return Widths(size.embed_dim, size.depth, size.num_heads)

    grid = model.online.grid
    twin = PlainM2D(
        widths(model.online.size),
        widths(model.predictor.size),
        patch=grid.patch_size,
        grid=grid.shape,
        visible=visible,
    )
    twin.load_state_dict(model.state_dict())
    return twin


class Contest:
    """Both models with the batches that they train on."""

    def __init__(self, run: Run, *, batches: int) -> None:
        self.run, self.trainer = run, run.trainer
        model = self.trainer.model.masked_model
        assert isinstance(model, M2D)
        self.batches = [batch.to(run.device) for batch in islice(run.batches, batches)]
        twin = plain_twin(model, self.trainer.model.num_visible).to(run.device)
        schedule = self.trainer.schedule
        self.plain = PlainStep(
            twin,
            learning_rate=schedule.learning_rate(0),
            ema_decay=schedule.ema_decay(0),
            fp16=run.device.type == "cuda",
        )

    def plain_step(self, batch: Batch) -> None:
        """A step of the baseline, from the waveforms on."""
        logmel, _ = self.trainer.model.views(batch)
        self.plain(logmel, batch.ids_shuffle)

    def own_step(self, batch: Batch) -> None:
        """A step of m2dx, from the waveforms on."""
        self.trainer.train_step(iter([batch]))

    def step_of(self, contestant: Contestant) -> Callable[[Batch], None]:
        """The step to time."""
        if contestant.precision == BASELINE:
            return self.plain_step
        recipe = self.trainer.recipe
        train = recipe.train.model_copy(update={"precision": contestant.precision})
        self.trainer.recipe = recipe.model_copy(update={"train": train})
        return self.own_step

    def clips_per_second(
        self, contestant: Contestant, batches: Iterator[Batch], steps: int, clock: str = "wall"
    ) -> float:
        """The speed of some steps of one contestant."""
        now = CLOCKS[clock]
        step, change = self.step_of(contestant), self.without(contestant.without)
        with change:
            wait(self.run.device)
            started = now()
            for batch in islice(batches, steps):
                step(batch)
            wait(self.run.device)
        return steps * len(self.batches[0].inputs) / (now() - started)

    def without(self, measure: str | None) -> AbstractContextManager[Any]:
        """While entered, the trainer does without a measure."""
        return nullcontext() if measure is None else MEASURES[measure](self.trainer)

    @torch.no_grad()
    def losses(self) -> Mapping[str, float]:
        """The loss of both on the first batch, in float32."""
        batch, model = self.batches[0], self.trainer.model
        logmel, _ = model.views(batch)
        return {
            "m2dx": float(model(batch).total),
            BASELINE: float(self.plain.model(logmel, batch.ids_shuffle)),
        }


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything measured, as plain data for JSON."""
    contestants = [Contestant(BASELINE), *map(Contestant, options.precisions)]
    contestants += [Contestant(p, name) for p in options.precisions for name in options.measures]
    host = PluginHost.discover()
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(start(recipe_of(options, host, folder), host), batches=4)
        about = machine_and_versions(contest.run.device)
        losses = contest.losses()
        for contestant in contestants:
            contest.clips_per_second(contestant, cycle(contest.batches), options.warmup)
        speeds: dict[Contestant, list[float]] = {contestant: [] for contestant in contestants}
        for repeat in range(options.repeats):
            # There and back: a machine that gets slower slows all by the same.
            for contestant in contestants if repeat % 2 == 0 else reversed(contestants):
                batches = islice(cycle(contest.batches), repeat, None)
                speed = contest.clips_per_second(contestant, batches, options.steps, options.clock)
                speeds[contestant].append(speed)
                say(f"{repeat + 1}/{options.repeats} {contestant}: {speeds[contestant][-1]:.3g} clips/s")
    results = [result_of(contestant, speeds) for contestant in contestants]
    names = ("size", "crop_seconds", "batch", "steps", "warmup", "repeats", "clock", "overrides")
    return {
        "benchmark": "step against a plain one",
        "recipe": RECIPE,
        "options": {
            **{name: getattr(options, name) for name in names},
            "seed": contest.trainer.recipe.seed,
        },
        **about,
        "losses": losses,
        "results": results,
    }


def result_of(contestant: Contestant, speeds: Mapping[Contestant, Sequence[float]]) -> dict[str, Any]:
    """One contestant's numbers; ratios are of timings of the same round."""

    def against(other: Contestant) -> dict[str, Any]:
        pairs = zip(speeds[contestant], speeds[other], strict=True)
        return quartiles([mine / its for mine, its in pairs])

    result = {
        **vars(contestant),
        "clips_per_second": quartiles(speeds[contestant]),
        "against_baseline": against(Contestant(BASELINE)),
    }
    if contestant.without is not None:
        result["against_all_measures"] = against(Contestant(contestant.precision))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; 1 where m2dx refuses a setting."""
    options, errors = parse(arguments), Console(stderr=True)
    try:
        report = measure(options, lambda line: errors.print(line, highlight=False))
    except M2dxError as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        return 1
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
