"""Everything a run needs before its first step: data, statistics, model, folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from m2dx.contract.components import DataInfo, Dataset, NoiseSource
from m2dx.contract.errors import CheckpointError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.data.bad_files import BadFile
from m2dx.data.batches import Blocks, TrainingBatches
from m2dx.data.clips import ClipList, join_sets
from m2dx.data.crops import AudioCrops, TrainingCrops
from m2dx.data.images import ImageCrops
from m2dx.data.loader import default_workers
from m2dx.data.noise import ClipNoise
from m2dx.data.statistics import Statistics, measure_audio, measure_images, measure_noise
from m2dx.encoder.initial_weights import initial_weights_table, load_initial_weights
from m2dx.encoder.weights import read_weights
from m2dx.model.build import build_masking, build_model
from m2dx.model.multitask import MultiTask
from m2dx.model.shapes import build_logmel
from m2dx.model.views import DataStatistics, ImageStatistics
from m2dx.recipe.schema import Recipe
from m2dx.training.distributed import Processes


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to train."""

    recipe: Recipe  # resolved: mean and std as given or measured
    folder: Path
    processes: Processes
    clips: ClipList
    crops: TrainingCrops
    model: MultiTask
    statistics: DataStatistics | ImageStatistics
    missing: tuple[str, ...]  # what the data sets lack on this machine; empty but in the main process
    bad: tuple[BadFile, ...]  # files found unusable while measuring
    host: PluginHost
    notes: tuple[str, ...] = ()  # what of their lists is ignored or taken for something else; as `missing`

    @property
    def num_files(self) -> int:
        """Distinct files of data and noise."""
        noise = self.crops.noise
        return self.clips.num_files + (noise.clips.num_files if isinstance(noise, ClipNoise) else 0)

    @property
    def workers(self) -> int:
        """Loading processes of this training process; by default the cores are shared by those of this machine."""
        if self.recipe.data.workers is None:
            return default_workers(processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        return self.recipe.data.workers

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
) -> PreparedRun:
    """Reads the lists of clips, measures what the recipe leaves open, and builds the model with its shapes checked.

    `initialise` false: without the weights of `init_from`, since others replace them (a checkpoint's).
    """
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    datasets = {name: host.build("dataset", section.dataset) for name, section in recipe.data.sets.items()}
    check_media(recipe, datasets, "data.sets")
    noise_dataset = build_noise_dataset(recipe, host)
    asked = {**datasets, **({} if noise_dataset is None else {"noise": noise_dataset})}
    missing = missing_lines(asked) if processes.is_main else ()
    notes = tuple(line for dataset in asked.values() for line in dataset.notes()) if processes.is_main else ()
    sections = recipe.data.sets
    clips = join_sets(
        {name: (datasets[name], section.split) for name, section in sections.items()},
        repeats={name: section.repeat for name, section in sections.items()},
    )
    _check_sampling(recipe, clips)
    noise = build_noise(recipe, host, noise_dataset)
    data = data_info(recipe, clips)
    # The model first, its statistics later: what cannot fit should not cost a pass over the data.
    draw_mask = build_masking(recipe, host)
    model = build_model(recipe, data, no_statistics(recipe), host)
    if initialise and recipe.init_from is not None:
        _start_from(recipe.init_from, model, recipe, processes, console)
    reader = crop_reader(recipe)
    found = processes.from_main(
        _measure(recipe, clips, reader, noise, processes, console) if processes.is_main else None
    )
    recipe, bad = with_statistics(recipe, *found), tuple(b for part in found if part for b in part.bad)
    statistics: DataStatistics | ImageStatistics
    statistics = recorded_statistics(recipe) if recipe.image is None else ImageStatistics.of(recipe.image)
    crops = TrainingCrops(
        clips, reader, seed=recipe.seed, draw_mask=draw_mask, noise=noise, with_crops=model.wants_crops
    )
    model.views.statistics = statistics
    folder = recipe.output / recipe.name
    return PreparedRun(recipe, folder, processes, clips, crops, model, statistics, missing, bad, host, notes)


def no_statistics(recipe: Recipe) -> DataStatistics | ImageStatistics:
    """Statistics that change nothing, until the data's are known."""
    if recipe.image is None:
        return DataStatistics(0.0, 1.0)
    return ImageStatistics((0.0,) * recipe.image.channels, (1.0,) * recipe.image.channels)


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


def _start_from(path: Path, model: MultiTask, recipe: Recipe, processes: Processes, console: Console) -> None:
    weights = read_weights(path, whole=True)
    try:
        parts = load_initial_weights(model.masked_model, weights, recipe.input)
    except CheckpointError as error:
        raise CheckpointError(f"{weights.path}: {error}") from error
    if processes.is_main:
        console.print(initial_weights_table(weights, parts, recipe.input))


def crop_reader(recipe: Recipe) -> AudioCrops | ImageCrops:
    """What cuts the training crops."""
    if recipe.image is not None:
        return ImageCrops(recipe.image)
    return AudioCrops(recipe.audio.crop_samples, recipe.audio.sample_rate, recipe.data.short_clips)


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


def missing_lines(datasets: Mapping[str, Dataset]) -> tuple[str, ...]:
    """What data sets lack on this machine, a line each, with the set's name before it."""
    return tuple(f"{name}: {line}" for name, dataset in datasets.items() for line in dataset.missing())


def build_noise_dataset(recipe: Recipe, host: PluginHost) -> Dataset | None:
    """The data set of the recipe's noise; None: the noise has another source, or there is none."""
    section = recipe.noise
    if section is None or section.ratio == 0.0 or section.dataset is None:
        return None
    dataset: Dataset = host.build("dataset", section.dataset)
    return dataset


def build_noise(recipe: Recipe, host: PluginHost, dataset: Dataset | None) -> NoiseSource | None:
    """The recipe's noise source, of a data set where it names one; None: it has none, or its ratio is 0."""
    section = recipe.noise
    if section is None or section.ratio == 0.0:
        return None
    if section.source is not None:
        source: NoiseSource = host.build("noise_source", section.source, sample_rate=recipe.audio.sample_rate)
        return source
    assert dataset is not None
    clips = dataset.clips(section.split)
    if not clips:
        raise RecipeError(f"noise.dataset must have clips, but has none (split: {section.split})")
    return ClipNoise(recipe.audio.sample_rate, clips)


def _measure(
    recipe: Recipe,
    clips: ClipList,
    reader: AudioCrops | ImageCrops,
    noise: NoiseSource | None,
    processes: Processes,
    console: Console,
) -> tuple[Statistics | None, Statistics | None]:
    """Statistics of the data and of the noise, each only where the recipe does not give them."""
    of_data = of_noise = None
    how: dict[str, Any] = {"seed": recipe.seed, "workers": recipe.data.workers}
    most = recipe.data.stats_clips
    if isinstance(reader, ImageCrops):
        if reader.section.mean is None:
            of_data = measure_images(clips, reader, max_clips=most, **how)
            mean, std = (", ".join(f"{x:.3f}" for x in values) for values in (of_data.mean, of_data.std))
            console.print(f"mean {mean}, std {std} by channel over {of_data.clips} images")
        return of_data, None
    how |= {"logmel": build_logmel(recipe.audio).to(processes.device), "device": processes.device}
    if recipe.data.mean is None:
        of_data = measure_audio(clips, reader, max_clips=most, **how)
        console.print(
            f"log-mel mean {of_data.mean[0]:.3f}, std {of_data.std[0]:.3f} over {of_data.clips} clips"
        )
    if noise is not None and recipe.noise is not None and recipe.noise.mean is None:
        of_noise = measure_noise(noise, crop_samples=reader.crop_samples, draws=min(most, 1000), **how)
        console.print(f"noise log-mel mean {of_noise.mean[0]:.3f} over {of_noise.clips} draws")
    return of_data, of_noise


def with_statistics(recipe: Recipe, data: Statistics | None, noise: Statistics | None) -> Recipe:
    """The recipe with the measured mean and std filled in."""
    update: dict[str, Any] = {}
    if data is not None and recipe.image is not None:
        update["image"] = recipe.image.model_copy(update={"mean": data.mean, "std": data.std})
    elif data is not None:
        update["data"] = recipe.data.model_copy(update={"mean": data.mean[0], "std": data.std[0]})
    if noise is not None and recipe.noise is not None:
        update["noise"] = recipe.noise.model_copy(update={"mean": noise.mean[0]})
    return recipe.model_copy(update=update)


def recorded_statistics(recipe: Recipe) -> DataStatistics:
    """The statistics of a resolved recipe on audio."""
    assert recipe.data.mean is not None and recipe.data.std is not None
    noise_mean = recipe.noise.mean if recipe.noise is not None else None
    return DataStatistics(recipe.data.mean, recipe.data.std, noise_mean or 0.0)
