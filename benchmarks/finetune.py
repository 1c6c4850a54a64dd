"""Fine-tunes pre-trained encoders and the same networks with random weights on a task, over several seeds.

    python benchmarks/finetune.py CSV --pretrained m2d=runs/m2d-seed{seed} [NAME=RUN ...] [--seeds 0 1 2]
                                  [--lrs 5e-4 2e-3] [--epochs 10 30] [--unit-seconds S] [--split] [--work DIR]
                                  [--json OUT]

The CSV must have training, validation and test parts, or folds: then each fold is the test part once, the next one the
validation part, and scores are means over these. A seed is that of the pre-training ({seed} in RUN), of the
random weights, and of the fine-tuning. For each of the encoders and for random weights alike, learning rate and epochs
are those with the best score on the validation part, with the first seed; the epoch is that too, for each seed. The
test part is scored once per run. What DIR holds already is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seeds import machine

from m2dx import Clip, Dataset, half_width_95, load_encoder
from m2dx.data.datasets import CsvDataset
from m2dx.encoder.audio import AudioEncoder, random_like
from m2dx.evaluation.finetuning.evaluator import Finetune
from m2dx.evaluation.tasks import ClipTask

RANDOM = "random weights"


@dataclass(frozen=True)
class Setting:
    """What is chosen on the validation part."""

    lr: float
    epochs: int


@dataclass(frozen=True)
class Tuned:
    """One fine-tuning."""

    encoder: str
    seed: int
    setting: Setting
    test: float
    valid: float
    epochs: list[int]  # that were tested, by fold
    cpu_seconds: float


class Rotated(Dataset):
    """A data set of folds as one of training, validation and test parts."""

    name = "rotated"

    def __init__(self, dataset: Dataset, *, test: str, valid: str) -> None:
        self.dataset, self.parts = dataset, {test: "test", valid: "valid"}

    def clips(self, split: str | None = None) -> list[Clip]:
        """Clips with the names of the parts."""
        found = [
            replace(clip, split=self.parts.get(clip.split or "", "train")) for clip in self.dataset.clips()
        ]
        return [clip for clip in found if split in (None, clip.split)]


def tasks_of(path: Path, unit_seconds: float) -> list[ClipTask]:
    """One task, or one per fold."""
    dataset: Dataset = CsvDataset(path=path.absolute())
    names = sorted({clip.split or "" for clip in dataset.clips()})
    datasets = [dataset]
    if "test" not in names:
        datasets = [
            Rotated(dataset, test=name, valid=names[(i + 1) % len(names)]) for i, name in enumerate(names)
        ]
    return [ClipTask.from_dataset(path.stem, each, unit_seconds=unit_seconds) for each in datasets]


def encoder_of(name: str, paths: dict[str, str], seed: int) -> AudioEncoder:
    """A pre-trained encoder, or random weights of the first one's architecture."""
    if name != RANDOM:
        return load_encoder(paths[name].format(seed=seed))
    return random_like(load_encoder(next(iter(paths.values())).format(seed=seed)), seed=seed)


def tune(name: str, seed: int, setting: Setting, tasks: list[ClipTask], args: argparse.Namespace) -> Tuned:
    """Fine-tunes once (on each fold), or reads what was found before."""
    options = {"batch_size": args.batch_size, "precision": args.precision, "adjust_positions": not args.split}
    facts = [name, seed, asdict(setting), options, str(args.csv), args.unit_seconds, args.pretrained]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    kept = args.work / f"{key}.json"
    if kept.exists():
        content = json.loads(kept.read_text())
        return Tuned(**{**content, "setting": Setting(**content["setting"])})
    encoder, begin = encoder_of(name, args.paths, seed), time.process_time()
    evaluator = Finetune(
        lr=setting.lr,
        epochs=setting.epochs,
        warmup_epochs=max(setting.epochs // 10, 1),
        **options,
    )
    scores = [evaluator.evaluate(encoder, task, seeds=(seed,))[0] for task in tasks]
    details: list[Any] = [score.details for score in scores]
    tuned = Tuned(
        name,
        seed,
        setting,
        float(np.mean([score.mean for score in scores])),
        float(np.mean([each["validation_scores"][0][0] for each in details])),
        [each["tested_epochs"][0][0] for each in details],
        time.process_time() - begin,
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(asdict(tuned)))
    print(
        f"{name}, seed {seed}, lr {setting.lr:g}, {setting.epochs} epochs: validation {100 * tuned.valid:.1f} "
        f"(epoch {', '.join(map(str, tuned.epochs))}), test {100 * tuned.test:.1f}, {tuned.cpu_seconds:.0f} s",
        flush=True,
    )
    return tuned


def interval(values: list[float]) -> str:
    """Mean and half width of the 95 % interval, in percent."""
    half = half_width_95(tuple(values))
    return f"{100 * float(np.mean(values)):.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def tables(grid: list[Tuned], finals: dict[str, list[Tuned]]) -> str:
    """Markdown: the choice on the validation part, then test scores with intervals over the seeds."""
    lines = ["| encoder | lr | epochs | validation | chosen |", "|---|---|---|---|---|"]
    chosen = {name: runs[0].setting for name, runs in finals.items()}
    for tuned in grid:
        mark = "x" if chosen[tuned.encoder] == tuned.setting else ""
        setting = tuned.setting
        lines.append(
            f"| {tuned.encoder} | {setting.lr:g} | {setting.epochs} | {100 * tuned.valid:.1f} | {mark} |"
        )
    lines += ["", "| encoder | test | by seed | above random weights |", "|---|---|---|---|"]
    for name, runs in finals.items():
        values = [run.test for run in runs]
        above = [run.test - other.test for run, other in zip(runs, finals[RANDOM], strict=True)]
        by_seed = ", ".join(f"{100 * value:.1f}" for value in values)
        lines.append(
            f"| {name} | {interval(values)} | {by_seed} | {'' if name == RANDOM else interval(above)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune pre-trained encoders and random weights.")
    parser.add_argument("csv", type=Path, help="list with the splits train, valid and test, or with folds")
    parser.add_argument("--pretrained", nargs="+", required=True, metavar="NAME=RUN", help="{seed} in RUN")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lrs", type=float, nargs="+", default=[5e-4, 2e-3])
    parser.add_argument("--epochs", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--unit-seconds", type=float, default=2.08)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument(
        "--split", action="store_true", help="split longer clips, instead of interpolating positions"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/finetune"), help="folder of single results")
    parser.add_argument("--json", type=Path, help="where all scores are written")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    args.paths = dict(entry.split("=", 1) for entry in args.pretrained)
    tasks = tasks_of(args.csv, args.unit_seconds)
    settings = [Setting(lr, epochs) for epochs, lr in itertools.product(args.epochs, args.lrs)]
    grid: list[Tuned] = []
    finals: dict[str, list[Tuned]] = {}
    for name in (*args.paths, RANDOM):
        tried = [tune(name, args.seeds[0], setting, tasks, args) for setting in settings]
        best = max(tried, key=lambda tuned: tuned.valid).setting
        finals[name] = [tune(name, seed, best, tasks, args) for seed in args.seeds]
        grid += tried
    print(f"\nfine-tuning on {args.csv.stem}, seeds {args.seeds}; {machine()}\n\n{tables(grid, finals)}")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        about = {"machine": machine(), "arguments": vars(args)}
        content = {
            **about,
            "grid": list(map(asdict, grid)),
            "finals": {name: list(map(asdict, runs)) for name, runs in finals.items()},
        }
        args.json.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
