"""What is tried: each candidate is a recipe, from scratch or from an encoder that is at hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import m2dx
from m2dx.contract.package import find_encoder
from m2dx.data.loader import default_workers
from m2dx.encoder.weights import read_weights
from m2dx.model.vit import VIT_SIZES
from m2dx.recipe.schema import AudioSection
from m2dx.results.scoring import name_of_encoder
from m2dx_specialise.judge import RANDOM

LABEL_WEIGHT, TEACHER_WEIGHT, NOISE_RATIO = 0.3, 0.5, 0.1
MOST_RECORDINGS = 2_000  # that a task tells apart; it has a row of weights for each
SCRATCH_LR, FURTHER_LR = 1e-3, 3e-4  # peaks of the learning rate, whatever the batch
WARMUP = 0.1  # share of the steps
SAVED_SECONDS = 60.0  # between checkpoints, at most

METHODS: Mapping[str, Mapping[str, str]] = {
    # the published target is nearly constant here
    "m2d": {"name": "m2d", "standardise_target": "channel", "target_layers": "mean", "loss": "mse"},
    "msm_mae": {"name": "msm_mae"},
}

Extra = Literal["", "labels", "shifts", "teacher", "replay", "noise"]
"""`shifts` are labels of clips that are moved along frequency, with another clip behind them."""


@dataclass(frozen=True)
class Network:
    """An encoder's input and size, as a recipe gives them."""

    crop_seconds: float
    patch_size: tuple[int, int]  # (mels, frames)
    size: str
    depth: int  # blocks
    audio: Mapping[str, Any] = field(default_factory=dict)  # settings of the log-mel beside the defaults
    backbone: Mapping[str, Any] | None = None  # of a plugin, with its options; None: a ViT

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
LARGE = Network(2.08, (16, 16), "small", 12)  # for a GPU
PATCHES = ((16, 16), (80, 4), (8, 16))
"""(mels, frames): even ones, and those that are fine in time and in frequency."""


def network_of(start: str) -> Network:
    """The network of an encoder. RecipeError for a size that recipes do not have, or an encoder of images."""
    config = read_weights(find_encoder(start)).config
    vit, audio = config.vit, config.audio
    widths = {(size.embed_dim, size.num_heads): name for name, size in VIT_SIZES.items()}
    name = widths.get((vit.embed_dim, vit.num_heads))
    if name is None or config.image is not None:
        what = "of images" if config.image is not None else f"{vit.embed_dim} wide"
        sizes = ", ".join(VIT_SIZES)
        raise m2dx.RecipeError(f"--start must be an audio encoder, a ViT {sizes}, but {start} is {what}")
    defaults = AudioSection(sample_rate=audio.sample_rate).model_dump()
    changed = {key: value for key, value in audio.model_dump().items() if value != defaults[key]}
    changed.pop("crop_seconds", None)
    crop = round(config.input_size[1] * audio.hop_length / audio.sample_rate, 6)
    own = config.backbone
    backbone = None if own is None else {"name": own.name, **own.options}
    settings = {"sample_rate": audio.sample_rate, **changed}
    return Network(crop, config.patch_size, name, vit.depth, settings, backbone)


@dataclass(frozen=True)
class Setting:
    """What all candidates share: lists, folder, machine."""

    output: Path  # for the folders of runs
    clips: Path  # list that is trained on; only clips whose labels may be used have one
    num_clips: int
    num_recordings: int  # files that they are from; 0: not to be told apart
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

    def having(self, extra: Extra) -> Candidate:
        """The same with something beside the method."""
        name, title = f"{self.name}_{extra}", f"{self.title}, with {extra}"
        return replace(self, name=name, title=title, extra=extra)

    def input(self, setting: Setting) -> str:
        """What the statistics of the data depend on."""
        network, is_mixed = self.network, self.extra == "replay"
        return json.dumps([setting.clips.name, network.crop_seconds, dict(network.audio), is_mixed])

    def recipe(self, setting: Setting, steps: int, *, seconds: float = 1.0) -> dict[str, Any]:
        """The recipe of so many steps, as plain data; a step takes about so many seconds."""
        batch, size = 128 if setting.on_gpu else 32, setting.num_clips
        start = None if self.start is None else str(find_encoder(self.start).resolve())
        sets: dict[str, Any] = {"domain": {"dataset": listed(setting.clips)}}
        if self.extra == "replay" and setting.general is not None:  # half of an epoch is the domain
            repeat = max(round(setting.num_general / size), 1)
            sets["domain"]["repeat"] = repeat
            sets["general"] = {"dataset": listed(setting.general)}
            size = repeat * size + setting.num_general
        if 2 <= setting.num_recordings <= MOST_RECORDINGS:
            sets["recordings"] = {"dataset": {**listed(setting.clips), "labels": "path"}}
        epoch = -(-max(size, 10 * batch) // batch)  # steps
        net, predictor = self.network, (384, 4, 6) if setting.on_gpu else (192, 1, 3)
        # By ema_decay the target follows within the run, however short it is.
        recipe: dict[str, Any] = {
            "name": f"{self.name}-{steps}",
            "output": str(setting.output),
            "seed": setting.seed,
            "data": {
                "sets": sets,
                "epoch_size": epoch * batch,
                "workers": setting.workers,
                "short_clips": "repeat",
            },
            "audio": {**net.audio, "crop_seconds": net.crop_seconds},
            "model": {
                "method": METHODS[self.method],
                **({} if net.backbone is None else {"backbone": dict(net.backbone)}),
                "size": net.size,
                "depth": net.depth,
                "patch_size": list(net.patch_size),
                "freeze_patch_embedding": True,
                "mask_ratio": 0.6,
                "predictor": dict(zip(("embed_dim", "depth", "num_heads"), predictor, strict=True)),
                "ema_decay": {
                    "start": max(1 - 20 / steps, 0.9),
                    "end": min(max(1 - 2 / steps, 0.99), 0.99999),
                },
            },
            "init_from": start,
            "tasks": self._tasks(start, sets),
            "train": {
                "epochs": steps / epoch,
                "warmup_epochs": WARMUP * steps / epoch,
                "batch_size": batch,
                "base_lr": (SCRATCH_LR if start is None else FURTHER_LR) * 256 / batch,
                "precision": "auto",
                "threads": None if setting.on_gpu else max(default_workers() // 2, 1),
                "log_every": max(steps // 50, 1),
                "rankme_every": max(steps // 10, 1),
                "checkpoint_every": max(min(steps // 5, int(SAVED_SECONDS / seconds)), 1),
                "keep_last": 1,
            },
        }
        if self.extra == "noise" and setting.noise is not None:
            recipe["noise"] = {"ratio": NOISE_RATIO, "dataset": listed(setting.noise)}
        if self.extra == "shifts":
            recipe["augmentations"] = [{"name": "mel_shift"}, {"name": "mixup"}]
        return recipe

    def _tasks(self, start: str | None, sets: Mapping[str, Any]) -> dict[str, Any]:
        """Beside the method: what pays on small data (docs/results.md), and what the candidate has more."""
        mapper = {"name": "pool_linear", "pooling": "mean_deviation"}
        labels = {"online_mapper": mapper, "loss": {"name": "cross_entropy"}, "weight": LABEL_WEIGHT}
        tasks: dict[str, Any] = {
            "statistics": {
                "offline_encoder": {"name": "log_mel_statistics"},
                "online_mapper": mapper,
                "loss": {"name": "mse"},
            },
            "spread": {"regulariser": {"name": "vicreg"}, "weight": "auto", "gradient_ratio": 1.0},
        }
        if "recordings" in sets:
            tasks["recordings"] = {"offline_encoder": {"name": "labels", "dataset": "recordings"}, **labels}
        if self.extra in ("labels", "shifts"):
            tasks["labels"] = {"offline_encoder": {"name": "labels", "dataset": "domain"}, **labels}
        if self.extra == "teacher":
            tasks["teacher"] = {
                "offline_encoder": {"name": "m2d_teacher", "weights": start},
                "online_mapper": {"name": "linear"},
                "loss": {"name": "norm_mse"},
                "target_frames": "tokens",
                "weight": TEACHER_WEIGHT,
            }
        return tasks


def listed(path: Path) -> dict[str, str]:
    """The data set of a list, as a recipe gives it."""
    return {"name": "csv", "path": str(path)}


def random_networks(setting: Setting) -> dict[str, Network]:
    """What there is before a training from scratch, by name: one network for each shape of patches."""
    network = LARGE if setting.on_gpu else SMALL
    return {
        f"{RANDOM} {mels}x{frames}": replace(network, patch_size=(mels, frames)).cropped(setting.clip_seconds)
        for mels, frames in PATCHES
    }


def propose(
    starts: Sequence[str], setting: Setting, scratch: Network, *, labelled: bool, scratch_first: bool = False
) -> list[Candidate]:
    """The candidates, the most promising one first: those with labels; `scratch` is trained from scratch.

    `scratch_first`: its random network is ahead of all starts.
    Raises what `network_of` raises.
    """
    found = list[tuple[int, Candidate]]()
    extras: list[tuple[int, Extra, bool]] = [
        (0, "shifts", labelled),
        (0, "labels", labelled),
        (2, "replay", setting.general is not None),
        (2, "noise", setting.noise is not None),
        (4, "teacher", True),
    ]
    names = [name_of_encoder(find_encoder(start)) for start in starts]
    for number, (start, name) in enumerate(zip(starts, names, strict=True), 1):
        short = re.sub(r"\W", "_", name, flags=re.ASCII)
        network = network_of(start).cropped(setting.clip_seconds)
        title = name if names.count(name) == 1 else f"{name} ({number})"
        base = Candidate(f"further_{number}_{short}", f"{title}, further", network, start)
        found += [(1, base)]
        found += [(order, base.having(extra)) for order, extra, is_wanted in extras if is_wanted]
    m2d = Candidate("scratch", "M2D from scratch", scratch)
    mae = Candidate("scratch_mae", "MSM-MAE from scratch", scratch, method="msm_mae")
    found += [(-1 if scratch_first else 3, m2d.having("shifts"))] if labelled else []
    found += [(1 if scratch_first else 3, m2d), (5, mae)]
    return [candidate for _, candidate in sorted(found, key=lambda item: item[0])]
