"""Logistic regression on an encoder's frozen features as a classifier: fitted, tested, and kept as a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch

import m2dx
from m2dx.contract.components import ViTSize
from m2dx.encoder.config import EXPORT_CONFIG, ClassifierConfig, EncoderConfig, read_config
from m2dx.encoder.finetuned import FinetunedNetwork
from m2dx.encoder.weights import EXPORT_WEIGHTS, copy_licences, read_weights, write_export
from m2dx.evaluation.bootstrap import difference, with_metrics
from m2dx.evaluation.features import MeanLogMel
from m2dx.evaluation.logistic import Logistic
from m2dx.model.shapes import build_logmel, model_shapes
from m2dx.model.vit import Encoder
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.results.scoring import taught_tasks, training_of
from m2dx.training.distributed import pick_device
from m2dx_classify import STATISTICS
from m2dx_classify.sources import LabelledClips


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier, and what its test says."""

    classifier: m2dx.AudioClassifier
    config: EncoderConfig
    summary: str
    source: Path | None  # folder or file of the encoder's weights

    def save(self, folder: Path) -> None:
        """Writes what `m2dx.load_classifier` and `m2dx.load_encoder` read; CheckpointError where that fails."""
        network = self.classifier.network.cpu()
        try:
            write_export(folder, network.encoder.encoder, self.config, network.head.state_dict())
            if self.source is not None:
                copy_licences(self.source, folder)
        except OSError as error:
            raise m2dx.CheckpointError(
                f"{folder}: the classifier cannot be written: {error.strerror or error}"
            ) from error


def check_request(
    model: Path, *, train: Path | None, task: str | None, save: Path | None, files: Sequence[Path]
) -> bool:
    """Whether a classifier is to be fitted; RecipeError where arguments do not go together. Reads no audio."""
    is_classifier = (model / EXPORT_CONFIG).is_file() and read_config(model).classifier is not None
    fits = train is not None or not is_classifier
    problem = None
    if model == STATISTICS:
        if train is None:
            problem = "log-mel statistics alone know no labelled clips; name them by --train"
    elif not model.exists():
        problem = f"{model} must be a run, an encoder or a classifier, but there is no such file or folder"
    elif not fits and (task is not None or save is not None):
        problem = (
            f"{model} is a classifier already; leave --task and --save out, or fit another one with --train"
        )
    elif not fits and not files:
        problem = "there must be audio files to classify (FILES), but there are none"
    elif train is not None and task is not None:
        problem = "--task names labelled clips of a run, and --train gives others; leave one of them out"
    elif save is not None:
        there = [name for name in (EXPORT_CONFIG, EXPORT_WEIGHTS, "recipe.yaml") if (save / name).exists()]
        if there or save.is_file():
            problem = f"--save must be a new folder, but {save} {f'has {there[0]}' if there else 'is a file'}"
        else:
            problem = _refused(save)
    if problem is not None:
        raise m2dx.RecipeError(problem)
    return fits


def _refused(folder: Path) -> str | None:
    """Why a folder cannot be written; nothing stays there."""
    try:
        parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        TemporaryFile(dir=parent).close()
    except OSError as error:
        return f"--save must be a folder that can be written, but {folder} cannot be: {error.strerror}"
    return None


def statistics_encoder() -> tuple[m2dx.AudioEncoder, EncoderConfig]:
    """Log-mel statistics as an encoder, whose layer 0 has the frames of the log-mel.

    It is a network of which the patch embedding passes on each frame as it is; its block adds nothing, and the last
    norm takes the level away.
    """
    audio = AudioSection(crop_seconds=1.0)  # of how many frames go through it at once
    grid = model_shapes(audio, ModelSection(patch_size=(audio.n_mels, 1))).grid
    network = Encoder(grid, ViTSize(audio.n_mels, depth=1, num_heads=1))
    state = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    state["patch_embed.proj.weight"] = torch.eye(audio.n_mels)[:, None, :, None]
    state["trunk.norm.weight"] += 1
    network.load_state_dict(state)
    config = EncoderConfig.of(network, audio)
    return m2dx.AudioEncoder(network, build_logmel(audio), mean=config.mean, std=config.std), config


def fit_classifier(
    model: Path, task: m2dx.ClipTask, *, settings: Mapping[str, Any] | None = None, device: str = "auto"
) -> Fitted:
    """The classifier of a task's training and validation part; with folds, of all of its clips.

    `model` is an encoder, or `STATISTICS`. The summary says how the test part is classified, or each fold by a
    classifier of the others, and how that compares with log-mel statistics alone. Nothing is random. `settings` are
    options of `Logistic`, where they are known.
    """
    logistic = Logistic(**settings or {})
    source = None
    if model == STATISTICS:
        (encoder, config), logistic = statistics_encoder(), replace(logistic, layers=(0,))
    else:
        weights = read_weights(model)
        encoder, config, source = m2dx.load_encoder(model), weights.config, weights.path
    encoder = encoder.requires_grad_(False).eval().to(pick_device(device, field="--device"))
    found = task.features(encoder, layers=logistic.named_layers)
    own = with_metrics(logistic.evaluate(encoder, task, seeds=(0,))[0], task.label_names)
    plain = None
    if model != STATISTICS:
        (plain,) = Logistic().evaluate(MeanLogMel(config.audio).eval(), task, seeds=(0,))
        plain = with_metrics(plain, task.label_names)
    several, fold = len(task.folds) > 1, task.folds[0]
    rows = np.arange(len(task.clips)) if several else fold.fitted
    if not several:  # what suits these very clips has been found
        chosen: Any = own.details
        layers = tuple(chosen["layer"])
        logistic = replace(logistic, c=chosen["c"][0], layers=layers, whiten=chosen["whiten"][0])
    layer = logistic.fit(task, found, rows)
    network = FinetunedNetwork(encoder, len(task.label_names), deviation=True, layer=layer.layer)
    norm = network.head.norm
    network.head.load_state_dict(
        {
            "norm.running_mean": torch.zeros(norm.num_features),  # the layer standardises its input itself
            "norm.running_var": torch.full((norm.num_features,), 1 - norm.eps),
            "norm.num_batches_tracked": torch.tensor(0),
            "linear.weight": layer.weight,
            "linear.bias": layer.bias,
        }
    )
    assert task.unit_seconds is not None  # of audio
    about = ClassifierConfig(
        label_names=task.label_names,
        multi_label=task.multi_label,
        unit_seconds=task.unit_seconds,
        short_clips=task.short_clips,
        long_clips="split",
        patchout=0.0,
        deviation=True,
        layer=layer.layer,
        **{
            "task": task.name,
            "c": layer.c,
            "clips": len(rows),
            own.metric: own.mean,
            "folds": len(task.folds),
        },
    )
    classifier = m2dx.AudioClassifier(network, about).requires_grad_(False).eval()
    tested = len(task.clips) if several else len(fold.test)
    said = _summary(task, own, plain, tested)
    if model != STATISTICS and (warning := _learnt(model, task)):
        said = f"{said}. But {warning}"
    return Fitted(classifier, config.model_copy(update={"classifier": about}), said, source)


def _learnt(model: Path, task: m2dx.ClipTask) -> str:
    """A warning where the encoder's own training learnt labels of the test clips; or ""."""
    host = m2dx.PluginHost.discover()
    training = training_of(model, host)
    tasks = {task.name: LabelledClips(task.name, list(task.clips))}
    return "" if training is None else taught_tasks(training, host, tasks).get(task.name, "")


def _summary(task: m2dx.ClipTask, own: m2dx.Score, plain: m2dx.Score | None, tested: int) -> str:
    where = f"on {tested} test clips, which it is not fitted to"
    if len(task.folds) > 1:
        where = f"on {tested} clips in {len(task.folds)} folds, each by a classifier of the others"
    half = own.ci95
    found = f"{task.name}: {own.metric} {100 * own.mean:.1f}{'' if half is None else f' ± {100 * half:.1f}'} % {where}"
    if plain is None:
        return found
    gap, gain = difference(own, plain), own.mean - plain.mean
    verdict = f"so the encoder {'loses' if gain < 0 else 'gains'} {100 * abs(gain):.1f} points"
    if gap is not None:
        verdict += f" (95 %: {100 * gap['low']:.1f} to {100 * gap['high']:.1f})"
    verdict += "; `m2dx classify --train ... log-mel` classifies without it" if gain < 0 else ""
    if gap["low"] <= 0 <= gap["high"] if gap is not None else half is not None and abs(gain) <= half:
        verdict = "and so few clips cannot tell the two apart"
    return f"{found}; without the encoder, log-mel statistics alone reach {100 * plain.mean:.1f} %, {verdict}"
