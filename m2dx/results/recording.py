"""Records of the scores of an evaluation."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from m2dx.contract.components import EvaluationTask, Score
from m2dx.contract.host import PluginHost
from m2dx.contract.version import package_version
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.images import ImageEncoder
from m2dx.evaluation.features import bytes_of
from m2dx.recipe.schema import EvaluationSection, Recipe
from m2dx.results.records import Division, Protocol, ResultRecord, ScoredEncoder
from m2dx.results.scores import PRETRAINED

PACKAGES = ("torch", "torchaudio", "timm", "numpy")


@dataclass(frozen=True)
class Source:
    """Where the encoder is from."""

    name: str
    path: Path | None = None


def records_of(
    scores: Sequence[Score],
    tasks: Sequence[EvaluationTask],
    encoder: AudioEncoder | ImageEncoder,
    source: Source,
    recipe: Recipe,
    *,
    plugins: Mapping[str, str],
    step: int | None = None,
) -> list[ResultRecord]:
    """A record per score of a recipe's evaluation; `plugins` are versions of the plugins' packages that took part.

    `step` is that of an encoder whose training went on after it.
    """
    section, by_name = recipe.evaluation, {task.name: task for task in tasks}
    now, device = datetime.now(UTC).replace(microsecond=0), device_kind(encoder)
    versions = {**package_versions(), **plugins}
    encoders = {name: _scored_encoder(name, encoder, source, recipe) for name in {s.encoder for s in scores}}
    records = []
    for score in scores:
        task = by_name[score.task]
        options = section.evaluators[score.protocol].model_dump(mode="json")
        records.append(
            ResultRecord(
                date=now,
                encoder=encoders[score.encoder],
                task=task.name,
                protocol=Protocol(score.protocol, options.pop("name"), options),
                metric=score.metric,
                mean=score.mean,
                ci95=score.ci95,
                values=score.values,
                seeds=section.seeds,
                step=step,
                recipe=recipe.name,
                dataset=section.tasks[task.name].dataset.name,
                division=_division(task),
                clips=len(task.clips),
                bad_clips=len(task.bad),
                classes=len(task.label_names),
                unit_seconds=task.unit_seconds,
                short_clips=task.short_clips,
                warnings=task.warnings,
                details=score.details,
                device=device,
                versions=versions,
            )
        )
    return records


def package_versions() -> dict[str, str]:
    """Versions of m2dx, of what it computes with, and of Python."""
    packages = {name: version(name) for name in PACKAGES}
    return {"m2dx": package_version(), **packages, "python": platform.python_version()}


def plugin_versions(section: EvaluationSection, host: PluginHost) -> dict[str, str]:
    """Versions of the packages, other than m2dx, whose data sets and evaluators an evaluation uses, by name."""
    used = {host.plugin_of("dataset", task.dataset.name) for task in section.tasks.values()}
    used |= {host.plugin_of("evaluator", spec.name) for spec in section.evaluators.values()}
    return {
        record.distribution: record.version or "unknown"
        for record in host.records
        if record.name in used and record.distribution is not None
    }


def device_kind(module: nn.Module) -> str:
    """ "cpu", or the kind and name of the GPU that a module is on."""
    device = next(module.parameters()).device
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def fingerprint(encoder: AudioEncoder | ImageEncoder, *, values: bool = True) -> str:
    """SHA-256 of an encoder's weights and of the settings of its input; without `values`, of the shapes alone."""
    digest = hashlib.sha256()
    if isinstance(encoder, AudioEncoder):
        logmel = encoder.logmel
        settings = [logmel.sample_rate, logmel.n_fft, logmel.win_length, logmel.hop_length, logmel.n_mels]
        _update(digest, [*settings, encoder.mean, encoder.std, encoder.long_clips])
    else:
        _update(digest, encoder.section.model_dump(mode="json"))
    for name, tensor in sorted(encoder.state_dict().items()):
        _update(digest, [name, str(tensor.dtype), list(tensor.shape)])
        if values:
            digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _scored_encoder(
    name: str, encoder: AudioEncoder | ImageEncoder, source: Source, recipe: Recipe
) -> ScoredEncoder:
    parameters = sum(parameter.numel() for parameter in encoder.encoder.parameters())
    if name == PRETRAINED:
        path = None if source.path is None else str(source.path)
        return ScoredEncoder(source.name, fingerprint(encoder), path, parameters)
    if name == "random_weights":
        return ScoredEncoder(name, fingerprint(encoder, values=False), None, parameters)
    digest = hashlib.sha256()
    _update(digest, recipe.audio.model_dump(mode="json", exclude={"crop_seconds"}))
    return ScoredEncoder(name, digest.hexdigest())


def _update(digest: hashlib._Hash, content: object) -> None:
    digest.update(json.dumps(content, sort_keys=True).encode("ascii"))


def _division(task: EvaluationTask) -> Division:
    if len(task.folds) > 1:
        return Division(len(task.folds))
    (fold,) = task.folds
    return Division(1, (len(fold.train), len(fold.valid), len(fold.test)))
