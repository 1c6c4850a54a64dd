"""Proposes a pre-training run for data of a given size, from the settings that are known to work, as a recipe.

What lies between known settings is interpolated and says so; GPU memory is estimated. This module imports neither torch
nor pydantic unless it is given weights to look at.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from m2dx.contract.errors import RecipeError

Strategy = Literal["from scratch", "further pre-training", "features only"]


@dataclass(frozen=True)
class KnownSetting:
    """A published schedule (M2D-X, IV and table XV)."""

    clips: int  # per epoch
    batch_size: int
    epochs: int
    warmup_epochs: int
    source: str


KNOWN = (
    KnownSetting(10_000, 128, 600, 24, "M2D-X on ICBHI 2017 (539 recordings, repeated to 10,000 an epoch)"),
    KnownSetting(281_241, 2048, 1000, 60, "M2D-S on LibriSpeech (281,241 clips)"),
    KnownSetting(2_005_132, 2048, 300, 20, "M2D on AudioSet (2,005,132 clips)"),
)
KNOWN_WITHIN = 1.1
"""Clips that are nearer than this factor to those of a known setting count as the same."""
FEWEST_CLIPS = 500
"""ICBHI's 539 recordings of 20 s are the smallest set with published gains."""
FURTHER_CLIPS = 2_683
"""SPRSound's recordings, test part included, are the largest set with a published further pre-training (IV-E 4)."""
FROM_SCRATCH_CLIPS = 50_000
"""About half-way, by factors, between 10,000 and 281,241: a guess, for want of published tests."""
GB_FIXED, PATCHES_PER_GB = 6.0, 1750.0
"""Of ViT-Base in mixed precision: with these, the batches of all rows of table XV come out."""
LONG_GPU_HOURS = 200
"""From here on, a plan warns."""


@dataclass(frozen=True)
class Request:
    """What the user has. Raises RecipeError for what cannot be."""

    clips: int
    gpu_memory: float  # GB of each GPU; 0: none
    clip_seconds: float | None = None
    processes: int = 1
    weights: Path | None = None
    labels: bool = False

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise RecipeError(f"clips must be 1 or more, but is {self.clips}")
        if self.processes < 1:
            raise RecipeError(f"processes must be 1 or more, but is {self.processes}")
        if not 0 <= self.gpu_memory < math.inf:
            raise RecipeError(f"gpu_memory must be 0 (no GPU) or GB of one GPU, but is {self.gpu_memory}")
        if self.clip_seconds is not None and not 0 < self.clip_seconds < math.inf:
            raise RecipeError(f"clip_seconds must be more than 0, but is {self.clip_seconds}")


@dataclass(frozen=True)
class Network:
    """The encoder that is trained: its input and size."""

    crop_seconds: float
    patch_size: tuple[int, int]
    patch_seconds: float
    source: str
    frequency_patches: int = 5
    size: str = "base"
    depth: int | None = None  # where it is not that of the size
    relative_memory: float = 1.0  # of a patch, relative to ViT-Base
    relative_work: float = 1.0  # computation of a patch, relative to ViT-Base
    audio: tuple[tuple[str, float], ...] = ()  # settings of the log-mel that are not the default

    @property
    def num_patches(self) -> int:
        """P, of one crop."""
        return self.frequency_patches * round(self.crop_seconds / self.patch_seconds)

    def cropped(self, clip_seconds: float | None) -> Network:
        """The network for crops that are no longer than the clips, but two patches at least."""
        if clip_seconds is None or clip_seconds >= self.crop_seconds:
            return self
        patches = math.floor(clip_seconds / self.patch_seconds + 1e-6)
        crop = round(max(patches, 2) * self.patch_seconds, 6)
        how = "shortened to the clips" if patches >= 2 else "two patches, the fewest; the clips are shorter"
        return replace(self, crop_seconds=crop, source=f"{self.source}; {how}")


FROM_SCRATCH = Network(
    6.08, (16, 16), 0.16, "M2D-X, IV-A; for speech 80 x 2 was best (recipes/m2d_s_6s.yaml)"
)
FURTHER = Network(2.0, (16, 4), 0.04, "the best of four on ICBHI (M2D-X, table XII)")


class Measured(NamedTuple):
    """What a published run took (M2D-X, table XV)."""

    patches: float  # of ViT-Base, in all
    gpu_hours: float
    source: str


SMALL_GPU = Measured(600 * 78 * 128 * FURTHER.num_patches, 7, "7 h on one RTX 3090 Ti (ICBHI)")
LARGE_GPU = Measured(300 * 979 * 2048 * FROM_SCRATCH.num_patches, 4 * 55, "55 h on 4 A100 80 GB (AudioSet)")
LARGE_GPU_MEMORY = 40.0
"""GB, from which on a GPU counts as one like the A100."""


class Schedule(NamedTuple):
    """Batch, epochs and warm-up, and where they come from."""

    batch_size: int
    epochs: int
    warmup_epochs: int
    source: str


@dataclass(frozen=True)
class Plan:
    """A proposal; `m2dx.plan_recipe` shows and writes it."""

    request: Request
    strategy: Strategy
    reason: str
    network: Network
    schedule: Schedule
    epoch_size: int | None  # None: the clips, each once
    micro_batch: int  # clips per GPU and backward pass
    accumulate: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return (self.epoch_size or self.request.clips) // self.schedule.batch_size

    @property
    def crops(self) -> int:
        """Crops that the run trains on."""
        return self.schedule.epochs * self.steps_per_epoch * self.schedule.batch_size

    @property
    def measured(self) -> Measured:
        """The published run on GPUs like the given ones."""
        return LARGE_GPU if self.request.gpu_memory >= LARGE_GPU_MEMORY else SMALL_GPU

    @property
    def relative_work(self) -> float:
        """Computation, relative to that run: patches and model size count."""
        patches = self.crops * self.network.num_patches * self.network.relative_work
        return patches / self.measured.patches

    @property
    def gpu_hours(self) -> float:
        """A rough estimate of hours times GPUs."""
        return self.relative_work * self.measured.gpu_hours


def propose(request: Request) -> Plan:
    """A plan for what the user has. RecipeError where nothing fits, CheckpointError for weights that cannot be read."""
    strategy, reason = _strategy(request)
    network = FURTHER if strategy == "further pre-training" else FROM_SCRATCH
    if request.weights is not None:
        network = _network_of(request.weights)
    network = network.cropped(request.clip_seconds)
    epoch_size = KNOWN[0].clips if request.clips < KNOWN[0].clips else None
    schedule = schedule_for(request.clips)
    if strategy == "features only":
        return Plan(request, strategy, reason, network, schedule, epoch_size, 0, 1)
    most = clips_that_fit(request.gpu_memory, network)
    accumulate = math.ceil(schedule.batch_size / (request.processes * most))
    micro_batch = max(schedule.batch_size // (request.processes * accumulate), 1)
    batch_size = micro_batch * request.processes * accumulate
    if batch_size != schedule.batch_size:
        source = f"{schedule.source}; {schedule.batch_size} made a multiple of {request.processes} processes"
        schedule = schedule._replace(batch_size=batch_size, source=source)
    return Plan(request, strategy, reason, network, schedule, epoch_size, micro_batch, accumulate)


def _strategy(request: Request) -> tuple[Strategy, str]:
    if request.gpu_memory == 0:
        return "features only", (
            "without a GPU, even the smallest published run (7 h on one GPU) takes weeks; to try out training, "
            "recipes/small/cpu has tiny ones"
        )
    if request.clips < FEWEST_CLIPS:
        return "features only", (
            f"{request.clips} clips are fewer than the smallest set with published gains, the 539 recordings of ICBHI "
            "2017 (3 h)"
        )
    if request.weights is not None:
        return "further pre-training", f"from the weights given; {_further_published(request.clips)}"
    if request.clips * KNOWN_WITHIN >= KNOWN[1].clips:
        return "from scratch", "published for 281,241 and for 2,005,132 clips"
    if request.clips >= FROM_SCRATCH_CLIPS:
        return "from scratch", (
            "a guess, since it is published for 281,241 clips and more; further pre-training, which `--weights` asks "
            "for, may do as well"
        )
    return "further pre-training", (
        "training from scratch failed on ICBHI's 539 recordings, and this gained 1.4 points over the published model "
        f"(M2D-X, tables XII and XIII); {_further_published(request.clips)}"
    )


def _further_published(clips: int) -> str:
    published = f"published for ICBHI's 539 recordings and SPRSound's {FURTHER_CLIPS:,} (with its test part)"
    return published if clips <= FURTHER_CLIPS * KNOWN_WITHIN else f"a guess for so many clips: {published}"


def schedule_for(clips: int) -> Schedule:
    """The schedule of the known setting at this number of clips, or one between two of them, linear in its logarithm.

    Below and above the known settings, the nearest one as it is. Interpolated values are round numbers.
    """
    nearest = min(KNOWN, key=lambda known: abs(math.log(clips / known.clips)))
    outside = not KNOWN[0].clips < clips < KNOWN[-1].clips
    if outside or max(clips / nearest.clips, nearest.clips / clips) < KNOWN_WITHIN:
        beyond = "; more clips than in any known setting" if clips > KNOWN[-1].clips * KNOWN_WITHIN else ""
        return Schedule(
            nearest.batch_size,
            nearest.epochs,
            nearest.warmup_epochs,
            f"known setting: {nearest.source}{beyond}",
        )
    below, above = next(pair for pair in itertools.pairwise(KNOWN) if clips < pair[1].clips)
    share = math.log(clips / below.clips) / math.log(above.clips / below.clips)

    kinds = "; a guess: one is further pre-training, the other from scratch" if below is KNOWN[0] else ""

    def between(low: float, high: float) -> float:
        return low + share * (high - low)

    return Schedule(
        2 ** round(between(math.log2(below.batch_size), math.log2(above.batch_size))),
        50 * round(between(below.epochs, above.epochs) / 50),
        2 * round(between(below.warmup_epochs, above.warmup_epochs) / 2),
        f"interpolated between the known settings of {below.clips:,} and {above.clips:,} clips{kinds}",
    )


def clips_that_fit(gpu_memory: float, network: Network) -> int:
    """Clips of one backward pass, a power of two, that fit into a GPU's memory (GB): an estimate, linear in patches."""
    fixed = GB_FIXED * (1 + 2 * network.relative_memory) / 3  # a part of it is not the network's
    patches = (gpu_memory - fixed) * PATCHES_PER_GB / network.relative_memory
    if patches < network.num_patches:
        least = math.ceil(fixed + network.num_patches * network.relative_memory / PATCHES_PER_GB)
        raise RecipeError(
            f"gpu_memory must be 0 (no GPU) or about {least} GB or more for one clip of {network.crop_seconds:g} s, "
            f"but is {gpu_memory:g}"
        )
    return int(2 ** math.floor(math.log2(patches / network.num_patches)))


def _network_of(path: Path) -> Network:
    """The input and size of pre-trained weights. RecipeError for a size that recipes do not have."""
    from m2dx.encoder.weights import read_weights
    from m2dx.model.vit import VIT_SIZES
    from m2dx.recipe.schema import AudioSection

    config = read_weights(path).config
    vit, patch_size, audio = config.size, config.grid.patch_size, config.audio
    widths = {(size.embed_dim, size.num_heads): name for name, size in VIT_SIZES.items()}
    name = widths.get((vit.embed_dim, vit.num_heads))
    if name is None:
        raise RecipeError(
            f"{path}: weights must be of a ViT {', '.join(VIT_SIZES)}, but are {vit.embed_dim} wide with "
            f"{vit.num_heads} heads; recipes have no such model"
        )
    defaults = AudioSection(sample_rate=audio.sample_rate).model_dump()
    changed = {key: value for key, value in audio.model_dump().items() if value != defaults[key]}
    if audio.sample_rate != AudioSection().sample_rate:
        changed = {"sample_rate": audio.sample_rate, **changed}
    changed.pop("crop_seconds", None)
    frame_seconds = audio.hop_length / audio.sample_rate
    return Network(
        round(config.grid.input_size[1] * frame_seconds, 6),
        patch_size,
        patch_size[1] * frame_seconds,
        "those of the weights",
        frequency_patches=config.grid.shape[0],
        size=name,
        depth=None if vit.depth == VIT_SIZES[name].depth else vit.depth,
        relative_memory=vit.embed_dim * vit.depth / (768 * 12),
        relative_work=vit.embed_dim**2 * vit.depth / (768**2 * 12),
        audio=tuple(changed.items()),
    )
