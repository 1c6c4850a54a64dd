"""`m2dx plan`: one of the three published ways to pre-train, for data of a given size, as a recipe.

Only proposals from given weights import torch and pydantic.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from m2dx.contract.errors import RecipeError

FEWEST_CLIPS = 500
"""ICBHI's 539 recordings of 20 s are the smallest set with published gains."""
FURTHER_CLIPS = 2_683
"""SPRSound's recordings, test part included, are the largest set with a published further pre-training (IV-E 4)."""


@dataclass(frozen=True)
class Network:
    """The encoder that is trained: its input and size."""

    crop_seconds: float
    patch_size: tuple[int, int]  # (mels, frames)
    source: str
    patch_seconds: float
    size: str = "base"
    depth: int | None = None  # if it differs from that of the size
    audio: tuple[tuple[str, float], ...] = ()  # settings of the log-mel that differ from the default

    def cropped(self, clip_seconds: float | None) -> Network:
        """The network for crops no longer than the clips, but of at least two patches."""
        if clip_seconds is None or clip_seconds >= self.crop_seconds:
            return self
        patches = math.floor(clip_seconds / self.patch_seconds + 1e-6)
        crop = round(max(patches, 2) * self.patch_seconds, 6)
        how = "shortened to the clips" if patches >= 2 else "two patches, the fewest; the clips are shorter"
        return replace(self, crop_seconds=crop, source=f"{self.source}; {how}")


class Setting(NamedTuple):
    """A published schedule (M2D-X, IV and table XV)."""

    clips: int  # per epoch
    batch_size: int
    epochs: int
    warmup_epochs: int
    source: str
    cost: str


ICBHI = "M2D-X on ICBHI 2017 (539 recordings, repeated to 10,000 an epoch)"
LIBRISPEECH = "M2D-S on LibriSpeech (281,241 clips)"
AUDIOSET = "M2D on AudioSet (2,005,132 clips)"
SETTINGS = (
    Setting(10_000, 128, 600, 24, ICBHI, "7 h on one RTX 3090 Ti"),
    Setting(281_241, 2048, 1000, 60, LIBRISPEECH, "half the crops of M2D on AudioSet"),
    Setting(2_005_132, 2048, 300, 20, AUDIOSET, "55 h on 4 A100 of 80 GB"),
)
FROM_SCRATCH = Network(
    6.08, (16, 16), "M2D-X, IV-A; for speech 80 x 2 was best (recipes/m2d_s_6s.yaml)", 0.16
)
TRIAL = Network(0.96, (16, 16), "recipes/quickstart.yaml", 0.16)
FURTHER = Network(2.0, (16, 4), "the best of four on ICBHI (M2D-X, table XII)", 0.04)
WEIGHTS = "${M2D_16X4}"
WHY = {
    "all": "the same in all known settings (M2D-X, IV-A)",
    "noise": "ICBHI; 0.01 on SPRSound: the number to try on your data (M2D-X, IV-E)",
    "mask_ratio": "M2D-X, IV-B, IV-C, IV-E; 0.6 was better for speech",
}
"""Sources of numbers in the table and in the recipe."""


@dataclass(frozen=True)
class Request:
    """What the user has."""

    clips: int
    gpu_memory: float  # GB of each GPU; 0: none
    clip_seconds: float | None = None
    processes: int = 1
    weights: Path | None = None
    labels: bool = False


@dataclass(frozen=True)
class Proposal:
    """How to train; `proposal_lines` shows it and `recipe_text` writes it."""

    request: Request
    strategy: str  # "from scratch", "further pre-training" or "features only"
    reason: str
    network: Network
    setting: Setting

    @property
    def batch_size(self) -> int:
        """The setting's batch, made a multiple of the processes."""
        return max(self.setting.batch_size // self.request.processes, 1) * self.request.processes

    @property
    def epoch_size(self) -> int:
        """Clips per epoch, at least as many as in the smallest setting."""
        return max(self.request.clips, SETTINGS[0].clips)

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints, for 48 checkpoints in all."""
        return max(self.setting.epochs * (self.epoch_size // self.batch_size) // (6 * 8), 1)


def propose(request: Request) -> Proposal:
    """The proposal for the data. Raises RecipeError or CheckpointError for weights that cannot be used."""
    setting = min(SETTINGS, key=lambda known: abs(math.log(request.clips / known.clips)))
    published = f"published for ICBHI's 539 recordings and SPRSound's {FURTHER_CLIPS:,} (with its test part)"
    if request.clips > FURTHER_CLIPS:
        published = f"a guess for so many clips: {published}"
    strategy, network = "further pre-training", FURTHER
    if request.gpu_memory == 0:
        strategy = "features only"
        reason = "without a GPU, even the smallest published run takes weeks; recipes/small/cpu has tiny ones"
    elif request.clips < FEWEST_CLIPS:
        strategy = "features only"
        reason = (
            f"{request.clips} clips are fewer than the smallest set with published gains (ICBHI 2017, 539)"
        )
    elif request.weights is not None:
        network, reason = _network_of(request.weights), f"from the weights given; {published}"
    elif setting is SETTINGS[0]:
        gain = "from scratch failed on ICBHI, and this gained 1.4 points over the published model"
        reason = f"{gain} (M2D-X, tables XII and XIII); {published}"
    else:
        strategy, network = "from scratch", FROM_SCRATCH
        reason = "published for 281,241 and for 2,005,132 clips"
        if request.clips < 0.9 * SETTINGS[1].clips:
            reason = f"a guess, since it is {reason}; further pre-training (--weights) may do as well"
    return Proposal(request, strategy, reason, network.cropped(request.clip_seconds), setting)


def _network_of(path: Path) -> Network:
    """The input and size of pre-trained weights. Raises RecipeError for a size that recipes do not have."""
    from m2dx.encoder.weights import read_weights
    from m2dx.model.vit import VIT_SIZES
    from m2dx.recipe.schema import AudioSection

    config = read_weights(path).config
    vit, patch_size, audio = config.vit, config.grid.patch_size, config.audio
    widths = {(size.embed_dim, size.num_heads): name for name, size in VIT_SIZES.items()}
    name = widths.get((vit.embed_dim, vit.num_heads))
    if name is None:
        found = f"are {vit.embed_dim} wide with {vit.num_heads} heads; recipes have no such model"
        raise RecipeError(f"{path}: weights must be of a ViT {', '.join(VIT_SIZES)}, but {found}")
    defaults = AudioSection(sample_rate=audio.sample_rate).model_dump()
    changed = {key: value for key, value in audio.model_dump().items() if value != defaults[key]}
    if audio.sample_rate != AudioSection().sample_rate:
        changed = {"sample_rate": audio.sample_rate, **changed}
    changed.pop("crop_seconds", None)
    frame_seconds = audio.hop_length / audio.sample_rate
    crop, patch = round(config.grid.input_size[1] * frame_seconds, 6), patch_size[1] * frame_seconds
    depth = None if vit.depth == VIT_SIZES[name].depth else vit.depth
    return Network(crop, patch_size, "those of the weights", patch, name, depth, tuple(changed.items()))


def proposal_lines(proposal: Proposal) -> list[tuple[str, str, str]]:
    """The rows of the proposal: what, value, source."""
    request, setting, network = proposal.request, proposal.setting, proposal.network
    further = proposal.strategy == "further pre-training"
    start = ("random weights", "as the published models on this much data")
    if request.weights is not None:
        start = (str(request.weights), "as given")
    elif further:
        start = (WEIGHTS, "the published 16 x 4 model, which ICBHI and SPRSound went on from (IV-E)")
    elif proposal.strategy == "features only":
        start = ("a published M2D", "M2D-AS is the best on average, M2D for speakers (table V)")
    lines = [("strategy", proposal.strategy, proposal.reason), ("start", *start)]
    if proposal.strategy == "features only":
        return lines
    source = f"nearest published setting: {setting.source}"
    batch = "" if proposal.batch_size == setting.batch_size else "; a multiple of the processes"
    repeated = request.clips < proposal.epoch_size
    epoch = "the list is repeated to that size (M2D-X, IV-E)" if repeated else "each clip once"
    crop = "{:g} s, {} x {}".format(network.crop_seconds, *network.patch_size)
    lines += [
        ("crop, patch", crop, network.source),
        ("batch size", f"{proposal.batch_size}", source + batch),
        ("an epoch", f"{proposal.epoch_size:,} clips", epoch),
        ("epochs", f"{setting.epochs}, warm-up {setting.warmup_epochs}", source),
        ("base learning rate", "3e-4", WHY["all"]),
        ("EMA decay", "0.99995 to 0.99999", WHY["all"]),
        ("mask ratio", "0.7", WHY["mask_ratio"]),
        ("accumulate", "auto", "measured before the first step: the fewest passes that fit into the memory"),
    ]
    if further:
        gain = "ICBHI: score 63.29 with it, 62.73 without (table XIII)"
        lines += [("teacher", "a task, weight 1.0", gain), ("noise", "ratio 0.3", WHY["noise"])]
    elif request.labels:
        lines.append(("labels", "a task, weight 1.0", "M2D-AS (M2D-X, IV-C), of 2 million clips"))
    return [*lines, ("cost", setting.cost, "the published run of ViT-Base (M2D-X, table XV)")]


def write_recipe(proposal: Proposal, path: Path, *, overwrite: bool) -> None:
    """Writes the proposal as a recipe. Raises RecipeError if the file exists already."""
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(recipe_text(proposal))
    except FileExistsError as error:
        raise RecipeError(
            f"{path}: the recipe must be a new file, but this one exists; give another name, or --overwrite"
        ) from error


def recipe_text(proposal: Proposal) -> str:
    """The proposal as a commented recipe; paths that only the user knows are environment variables."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    own = PackageLoader("m2dx_plan")
    templates = Environment(
        loader=own, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    weights = proposal.request.weights
    start = json.dumps(WEIGHTS if weights is None else str(weights.absolute()), ensure_ascii=False)
    template = templates.get_template("plan.yaml.in")
    seconds = TRIAL.cropped(proposal.request.clip_seconds).crop_seconds
    return template.render(**vars(proposal), plan=proposal, why=WHY, weights=start, trial_seconds=seconds)
