"""What is tried: each candidate is a recipe, from scratch or from an encoder that is at hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import m2dx
from m2dx.contract.package import find_encoder
from m2dx.encoder.weights import read_weights
from m2dx.model.vit import VIT_SIZES
from m2dx.recipe.schema import AudioSection
from m2dx.results.scoring import name_of_encoder

LABEL_WEIGHT, TEACHER_WEIGHT, NOISE_RATIO = 1.0, 0.5, 0.1
SCRATCH_LR, FURTHER_LR = 1e-3, 3e-4
"""Peaks of the learning rate, whatever the batch."""
WARMUP = 0.1
"""Share of the steps."""
SAVED_SECONDS = 60.0
"""Between checkpoints, at most."""

METHODS: Mapping[str, Mapping[str, str]] = {
    "m2d": {
        "standardise_target": "channel",
        "target_layers": "mean",
    },  # the published target is nearly constant here
    "msm_mae": {},
}

Extra = Literal["", "labels", "teacher", "replay", "noise"]


@dataclass(frozen=True)
class Network:
    """An encoder's input and size, as a recipe gives them."""

    crop_seconds: float
    patch_size: tuple[int, int]  # (mels, frames)
    size: str
    depth: int  # blocks
    audio: Mapping[str, Any] = field(
        default_factory=dict
    )  # settings of the log-mel that differ from the default

    def cropped(self, seconds: float) -> Network:
        """With crops no longer than clips of so many seconds, but of two patches or more."""
        audio = AudioSection(**self.audio)
        patch = self.patch_size[1] * audio.hop_length / audio.sample_rate
        crop = round(max(math.floor(seconds / patch + 1e-6), 2) * patch, 6)
        return self if crop >= self.crop_seconds else replace(self, crop_seconds=crop)

    @property
    def text(self) -> str:
        """In words."""
        patch = "{} x {}".format(*self.patch_size)
        return f"{self.size}, {self.depth} blocks, patches {patch}, crops of {self.crop_seconds:g} s"


SMALL = Network(0.96, (16, 16), "tiny", 4)
"""As in recipes/quickstart.yaml: what a processor trains in minutes."""
LARGE = Network(2.08, (16, 16), "small", 12)
"""For a GPU."""


def network_of(start: str) -> Network:
    """The network of an encoder. RecipeError for a size that recipes do not have, or an encoder of images."""
    config = read_weights(find_encoder(start)).config
    vit, audio = config.vit, config.audio
    widths = {(size.embed_dim, size.num_heads): name for name, size in VIT_SIZES.items()}
    name = widths.get((vit.embed_dim, vit.num_heads))
    if name is None or config.image is not None:
        what = "of images" if config.image is not None else f"{vit.embed_dim} wide"
        raise m2dx.RecipeError(
            f"--start must be an audio encoder, a ViT {', '.join(VIT_SIZES)}, but {start} is {what}"
        )
    defaults = AudioSection(sample_rate=audio.sample_rate).model_dump()
    changed = {key: value for key, value in audio.model_dump().items() if value != defaults[key]}
    changed.pop("crop_seconds", None)
    crop = round(config.input_size[1] * audio.hop_length / audio.sample_rate, 6)
    return Network(crop, config.patch_size, name, vit.depth, {"sample_rate": audio.sample_rate, **changed})


@dataclass(frozen=True)
class Setting:
    """What all candidates share: lists, folder, machine."""

    output: Path  # for the folders of runs
    clips: Path  # list that is trained on; only clips whose labels may be used have one
    num_clips: int
    clip_seconds: float
    general: Path | None = None  # for replay
    num_general: int = 0
    noise: Path | None = None
    on_gpu: bool = False
    workers: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """One way to train."""

    name: str  # of its runs
    title: str
    network: Network
    start: str | None = None
    extra: Extra = ""
    method: str = "m2d"

    def recipe(self, setting: Setting, steps: int, *, seconds: float = 1.0) -> dict[str, Any]:
        """The recipe of so many steps, as plain data; a step takes about so many seconds."""
        batch, size = 128 if setting.on_gpu else 32, setting.num_clips
        start = None if self.start is None else str(find_encoder(self.start).resolve())
        sets: dict[str, Any] = {"domain": {"dataset": listed(setting.clips)}}
        if self.extra == "replay" and setting.general is not None:  # half of an epoch is the domain
            repeat = max(round(setting.num_general / size), 1)
            sets["domain"]["repeat"] = repeat
            sets["general"] = {"dataset": listed(setting.general, labels=False)}
            size = repeat * size + setting.num_general
        epoch = -(-max(size, 10 * batch) // batch)  # steps
        predictor = (384, 4, 6) if setting.on_gpu else (192, 1, 3)
        model: dict[str, Any] = {
            "method": {"name": self.method, **METHODS[self.method]},
            "size": self.network.size,
            "depth": self.network.depth,
            "patch_size": list(self.network.patch_size),
            "mask_ratio": 0.6,
            "predictor": dict(zip(("embed_dim", "depth", "num_heads"), predictor, strict=True)),
            # a target that follows within the run, however short it is
            "ema_decay": {"start": max(1 - 20 / steps, 0.9), "end": min(max(1 - 2 / steps, 0.99), 0.99999)},
        }
        recipe: dict[str, Any] = {
            "name": f"{self.name}-{steps}",
            "output": str(setting.output),
            "seed": setting.seed,
            "data": {
                "sets": sets,
                "short_clips": "repeat",
                "epoch_size": epoch * batch,
                "workers": setting.workers,
            },
            "audio": {**self.network.audio, "crop_seconds": self.network.crop_seconds},
            "model": model,
            "init_from": start,
            "tasks": self._tasks(start),
            "train": {
                "epochs": steps / epoch,
                "warmup_epochs": WARMUP * steps / epoch,
                "batch_size": batch,
                "base_lr": (SCRATCH_LR if start is None else FURTHER_LR) * 256 / batch,
                "precision": "bf16",
                "threads": None if setting.on_gpu else 1,
                "log_every": max(steps // 50, 1),
                "rankme_every": max(steps // 10, 1),
                "checkpoint_every": max(min(steps // 5, int(SAVED_SECONDS / seconds)), 1),
                "keep_last": 1,
            },
        }
        if self.extra == "noise" and setting.noise is not None:
            recipe["noise"] = {"ratio": NOISE_RATIO, "dataset": listed(setting.noise, labels=False)}
        return recipe

    def _tasks(self, start: str | None) -> dict[str, Any]:
        labels = {
            "offline_encoder": {"name": "labels", "dataset": "domain"},
            "online_mapper": {"name": "pool_linear"},
            "loss": {"name": "cross_entropy"},
            "weight": LABEL_WEIGHT,
        }
        teacher = {
            "offline_encoder": {"name": "m2d_teacher", "weights": start},
            "online_mapper": {"name": "linear"},
            "loss": {"name": "norm_mse"},
            "target_frames": "tokens",
            "weight": TEACHER_WEIGHT,
        }
        return {name: task for name, task in (("labels", labels), ("teacher", teacher)) if name == self.extra}


def listed(path: Path, *, labels: bool = True) -> dict[str, Any]:
    """The data set of a list or a folder, as a recipe gives it."""
    if path.is_dir():
        return {"name": "folder", "path": str(path)}
    return {"name": "csv", "path": str(path), "labels": labels}


def propose(starts: Sequence[str], setting: Setting, *, labelled: bool) -> list[Candidate]:
    """The candidates, the most promising one first. Raises what `network_of` raises."""
    seconds, found = setting.clip_seconds, list[tuple[int, Candidate]]()
    wanted: list[tuple[int, Extra, bool]] = [
        (0, "", True),
        (1, "labels", labelled),
        (2, "replay", setting.general is not None),
        (2, "noise", setting.noise is not None),
        (4, "teacher", True),
    ]
    for number, start in enumerate(starts, 1):
        name = name_of_encoder(find_encoder(start))
        network, short = network_of(start).cropped(seconds), re.sub(r"\W", "_", name, flags=re.ASCII)
        base = Candidate(f"further_{number}_{short}", f"{name}, further", network, start)
        for order, extra, is_wanted in wanted:
            if is_wanted and not extra:
                found.append((order, base))
            elif is_wanted:
                title = f"{base.title}, with {extra}"
                found.append((order, replace(base, name=f"{base.name}_{extra}", title=title, extra=extra)))
    scratch = Candidate("scratch", "M2D from scratch", (LARGE if setting.on_gpu else SMALL).cropped(seconds))
    if labelled:
        title = f"{scratch.title}, with labels"
        found.append((3, replace(scratch, name="scratch_labels", title=title, extra="labels")))
    mae = replace(scratch, name="scratch_mae", title="MSM-MAE from scratch", method="msm_mae")
    found += [(3, scratch), (5, mae)]
    return [candidate for _, candidate in sorted(found, key=lambda item: item[0])]
