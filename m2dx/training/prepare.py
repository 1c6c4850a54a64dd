"""Everything a run needs before its first step: data, statistics, model, folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from m2dx.contract.components import DataInfo, Dataset, NoiseSource
from m2dx.contract.errors import RecipeError
from m2dx.contract.host import PluginHost
from m2dx.contract.progress import ProgressLine
from m2dx.data.bad_files import BadFile
from m2dx.data.batches import Blocks, TrainingBatches
from m2dx.data.clips import ClipList, call_dataset, join_sets, list_clips
from m2dx.data.crops import AudioCrops, TrainingCrops
from m2dx.data.images import ImageCrops
from m2dx.data.loader import default_workers
from m2dx.data.noise import ClipNoise
from m2dx.data.statistics import measure_audio, measure_images, measure_noise
from m2dx.encoder.initial_weights import initial_weights_table, load_initial_weights, weights_of_start
from m2dx.model.build import build_model
from m2dx.model.multitask import MultiTask
from m2dx.model.precision import choose_precision, has_bf16
from m2dx.model.shapes import build_logmel
from m2dx.model.vit import encoder_of
from m2dx.recipe.schema import Recipe
from m2dx.training.callbacks import Callbacks
from m2dx.training.distributed import Processes
from m2dx.training.optim import build_optimizer, build_schedule


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to train."""

    recipe: Recipe  # resolved: mean and std as given or measured, and the precision
    folder: Path
    processes: Processes
    clips: ClipList
    crops: TrainingCrops
    model: MultiTask
    host: PluginHost
    callbacks: Callbacks
    bad: tuple[BadFile, ...] = ()  # files found unusable while measuring
    missing: tuple[str, ...] = ()  # what the data sets lack on this machine; empty but in the main process
    notes: tuple[str, ...] = ()  # what of their lists is ignored or taken for something else; as `missing`

    @property
    def lists(self) -> dict[str, ClipList]:
        """The lists that crops are drawn from: `clips`, and `noise` where it is of clips."""
        noise = self.crops.noise
        return {"clips": self.clips, **({"noise": noise.clips} if isinstance(noise, ClipNoise) else {})}

    @property
    def num_files(self) -> int:
        """Distinct files of data and noise."""
        return sum(clips.num_files for clips in self.lists.values())

    @property
    def workers(self) -> int:
        """Loading processes of this training process; by default the cores are shared by those of this machine."""
        if self.recipe.data.workers is None:
            return default_workers(processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        return self.recipe.data.workers

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the training."""
        return max(round(self.recipe.train.epochs * self.batches().steps_per_epoch), 1)

    def batches(self, *, start_step: int = 0, total_steps: int | None = None) -> TrainingBatches:
        """The keys of this process's micro-batches from a step on."""
        recipe, at_once = self.recipe, self.recipe.data.shards_at_once
        return TrainingBatches(
            len(self.clips),
            draws=self.clips.draws,
            weights=self.clips.draw_weights if recipe.data.sampling == "weighted" else None,
            blocks=None if at_once is None else Blocks(self.clips.draw_shards, at_once),
            batch_size=recipe.train.batch_size,
            epoch_size=recipe.data.epoch_size,
            accumulate=recipe.train.backward_passes,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            seed=recipe.seed,
            start_step=start_step,
            total_steps=total_steps,
        )


def prepare(
    recipe: Recipe,
    host: PluginHost,
    processes: Processes,
    console: Console,
    *,
    initialise: bool = True,
    measure: bool = True,
) -> PreparedRun:
    """Reads the lists of clips, measures what the recipe leaves open, and builds the model with its shapes checked.

    `initialise` false: without the weights of `init_from`, since others replace them (a checkpoint's). `measure` false:
    what the recipe leaves open stays so, and changes nothing.
    """
    precision = processes.from_main(choose_precision(recipe.train.precision, processes.device))
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": precision})})
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    sections = recipe.data.sets
    datasets = {name: host.build("dataset", section.dataset) for name, section in sections.items()}
    check_media(recipe, datasets, "data.sets")
    noise, noise_lists = _noise(recipe, host)
    reporting = [*datasets.items(), *noise_lists] if processes.is_main else []
    missing = _missing(reporting, precision, processes.device) if processes.is_main else ()
    notes = tuple(line for name, dataset in reporting for line in call_dataset(name, dataset, "notes"))
    with console.status("reading the lists of clips"):
        clips = join_sets(
            {name: (datasets[name], section.split) for name, section in sections.items()},
            repeats={name: section.repeat for name, section in sections.items()},
        )
    _check_agreement(clips, processes)
    _check_sampling(recipe, clips)
    # The model first, its statistics later: what cannot fit should not cost a pass over the data.
    model = build_model(recipe, data_info(recipe, clips), host)
    build_optimizer(model, recipe.train, host)
    build_schedule(recipe.train, host)
    callbacks = Callbacks(recipe.train, host, processes)
    if initialise and recipe.init_from is not None:
        _start_from(model, recipe, host, processes, console)
    reader: AudioCrops | ImageCrops = AudioCrops(
        recipe.audio.crop_samples, recipe.audio.sample_rate, recipe.data.short_clips
    )
    if recipe.image is not None:
        reader = ImageCrops(recipe.image)
    measured, bad = dict[str, dict[str, Any]](), list[BadFile]()
    if measure:
        measured, bad = processes.from_main(
            _measure(recipe, clips, reader, noise, processes, console) if processes.is_main else None
        )
    update = {name: getattr(recipe, name).model_copy(update=values) for name, values in measured.items()}
    recipe = recipe.model_copy(update=update)
    model.views.resolve(recipe)
    crops = TrainingCrops(
        clips,
        reader,
        seed=recipe.seed,
        draw_mask=model.masking,
        noise=noise,
        with_crops=any(encoder.wants_crops for encoder in model.offline_encoders),
    )
    folder = recipe.output / recipe.name
    return PreparedRun(
        recipe, folder, processes, clips, crops, model, host, callbacks, tuple(bad), missing, notes
    )


def _missing(lists: Sequence[tuple[str, Dataset]], precision: str, device: torch.device) -> tuple[str, ...]:
    """What data sets lack on this machine, and bf16 where the device does not compute in it."""
    found = [f"{name}: {line}" for name, dataset in lists for line in call_dataset(name, dataset, "missing")]
    if precision == "bf16" and not has_bf16(device):
        found.append(f"{device} has no bf16, so steps take many times longer; set train.precision=auto")
    return tuple(found)


def _noise(recipe: Recipe, host: PluginHost) -> tuple[NoiseSource | None, list[tuple[str, Dataset]]]:
    """Where noise is drawn from, if anywhere, and its data set with the name `noise`, if it is one."""
    section, rate = recipe.noise, recipe.audio.sample_rate
    if section is None or section.ratio == 0.0:
        return None, []
    if section.source is not None:
        return host.build("noise_source", section.source, sample_rate=rate), []
    assert section.dataset is not None
    dataset = host.build("dataset", section.dataset)
    check_media(recipe, {"dataset": dataset}, "noise")
    clips = list_clips("noise", dataset, section.split)
    if not clips:
        raise RecipeError(f"noise.dataset must have clips, but has none (split: {section.split})")
    return ClipNoise(rate, clips), [("noise", dataset)]


def _check_agreement(clips: ClipList, processes: Processes) -> None:
    """RecipeError where processes read other lists: a number would be another clip. Folders may be others."""
    digest = hashlib.sha256(repr(clips.label_names).encode("utf-8", "surrogateescape"))
    for path in clips.paths if processes.world_size > 1 else ():
        digest.update(os.fsencode(os.path.basename(path)) + b"\0")
    digest.update(clips.starts.tobytes() + clips.durations.tobytes())
    if len(set(processes.gather(digest.hexdigest()))) > 1:
        raise RecipeError(
            "data.sets: all processes must read the same clips and labels, but their lists differ; is a folder still "
            "being copied, or another one mounted?"
        )


def _check_sampling(recipe: Recipe, clips: ClipList) -> None:
    """RecipeError where weighted sampling would be as good as none, or shards are spoken of that are not there."""
    if recipe.data.shards_at_once is not None and int(clips.draw_shards.max()) < 0:
        raise RecipeError(
            "data.shards_at_once needs packed data (dataset: {name: packed, ...}), but no clip lies in a shard; leave "
            "it out, or pack the data with `m2dx pack`"
        )
    if recipe.data.sampling != "weighted":
        return
    total, size = len(clips.draws), recipe.data.epoch_size
    if size is None or size >= total:
        raise RecipeError(
            f"data.sampling: weighted needs data.epoch_size below the number of clips ({total}), but it is "
            f"{'not given' if size is None else size}; an epoch of all clips takes each once, whatever its weight"
        )
    if np.ptp(clips.weights) == 0.0:
        raise RecipeError(
            "data.sampling: weighted needs a data set that gives its clips different weights, but all are alike; a CSV "
            "gives them in a column `weight`"
        )


def _start_from(
    model: MultiTask, recipe: Recipe, host: PluginHost, processes: Processes, console: Console
) -> None:
    weights = weights_of_start(recipe, encoder_of(model.masked_model), host)
    parts = load_initial_weights(model.masked_model, weights, recipe.input)
    if processes.is_main:
        console.print(initial_weights_table(weights, parts, recipe.input))


def data_info(recipe: Recipe, clips: ClipList) -> DataInfo:
    """What components may know about the data."""
    if recipe.image is not None:
        return DataInfo(None, None, clips.label_names)
    return DataInfo(recipe.audio.sample_rate, recipe.audio.crop_samples, clips.label_names)


def check_media(recipe: Recipe, datasets: Mapping[str, Dataset], place: str) -> None:
    """RecipeError where data sets list audio for a recipe on images, or the other way round; `place`: in the recipe."""
    wanted = "audio" if recipe.image is None else "image"
    what = {"audio": "audio", "image": "images"}
    lines = [
        f"{place}.{name}: the input of the recipe is {what[wanted]}, but the data set {dataset.name} lists "
        f"{what[dataset.media]}; {'add' if wanted == 'audio' else 'leave out'} `image:`, or take another data set"
        for name, dataset in datasets.items()
        if dataset.media not in (None, wanted)
    ]
    if lines:
        raise RecipeError("\n".join(lines))


def _measure(
    recipe: Recipe,
    clips: ClipList,
    reader: AudioCrops | ImageCrops,
    noise: NoiseSource | None,
    processes: Processes,
    console: Console,
) -> tuple[dict[str, dict[str, Any]], list[BadFile]]:
    """Statistics that the recipe leaves open, by section, and the files that could not be used for them."""
    measured: dict[str, dict[str, Any]] = {}
    bad: list[BadFile] = []
    how: dict[str, Any] = {"seed": recipe.seed, "workers": recipe.data.workers}
    most = recipe.data.stats_clips
    if isinstance(reader, ImageCrops):
        if reader.section.mean is None:
            with ProgressLine(console, "measuring the images") as line:
                found = measure_images(clips, reader, max_clips=most, progress=line.update, **how)
            mean, std = (", ".join(f"{x:.3f}" for x in values) for values in (found.mean, found.std))
            console.print(f"mean {mean}, std {std} by channel over {found.clips} images")
            measured["image"] = {"mean": found.mean, "std": found.std}
            bad += found.bad
        return measured, bad
    logmel = build_logmel(recipe.audio).to(processes.device)
    if recipe.data.mean is None:
        with ProgressLine(console, "measuring the log-mels") as line:
            found = measure_audio(clips, reader, logmel, max_clips=most, progress=line.update, **how)
        measured["data"] = {"mean": found.mean[0], "std": found.std[0]}
        console.print(f"log-mel mean {found.mean[0]:.3f}, std {found.std[0]:.3f} over {found.clips} clips")
        bad += found.bad
    if noise is not None and recipe.noise is not None and recipe.noise.mean is None:
        how |= {"crop_samples": reader.crop_samples, "draws": min(most, 1000)}
        with ProgressLine(console, "measuring the noise") as line:
            found = measure_noise(noise, logmel, progress=line.update, **how)
        console.print(f"noise log-mel mean {found.mean[0]:.3f} over {found.clips} draws")
        measured["noise"] = {"mean": found.mean[0]}
        bad += found.bad
    return measured, bad
