"""Frozen clip features of a task's clips, their standardisation, and features that are kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, is_dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from m2dx.contract.atomic import replace_file
from m2dx.contract.components import ClipEncoder, EvaluationTask, Features, OverTime
from m2dx.contract.errors import CheckpointError, RecipeError, TrainingError
from m2dx.contract.options import Section
from m2dx.contract.package import package_version
from m2dx.data.containers import audio_state
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.images import ImageEncoder
from m2dx.encoder.weights import read_tensors, tensors_writer
from m2dx.model.precision import autocast
from m2dx.model.shapes import build_logmel
from m2dx.recipe.schema import AudioSection

logger = logging.getLogger(__name__)

CACHE_FOLDER = "features"  # folder of the cache, beside the runs
READING_THREADS = 4
MOST_BLOCKS = 5  # blocks whose outputs are among the features, unless others are asked for
_KEY = "key"  # of the metadata: whose features a file holds

T = TypeVar("T")


@dataclass(frozen=True)
class Standardiser:
    """Brings features to mean 0 and variance 1 over the training clips; constant features are only shifted."""

    mean: Tensor  # (D,)
    std: Tensor  # (D,)

    @classmethod
    def fit(cls, x: Tensor) -> Standardiser:
        """Statistics of training features (n, D)."""
        mean, std = x.mean(0), x.std(0, correction=0)
        constant = std <= 1e-6 * mean.abs().clamp_min(1e-6)  # below what float32 sums can tell from zero
        return cls(mean, torch.where(constant, torch.ones_like(std), std))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def device_of(encoder: ClipEncoder) -> torch.device:
    """Where an encoder's parameters or buffers are; the CPU if it has none."""
    if not isinstance(encoder, nn.Module):
        return torch.device("cpu")
    first = next(chain(encoder.parameters(), encoder.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def bytes_of(tensor: Tensor) -> bytes:
    """A tensor's values in their order, for a digest."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def extract(encoder: ClipEncoder, task: EvaluationTask, *, batch_size: int) -> Features:
    """Features of all clips of the task.

    Raises TrainingError where the encoder refuses clips or its features are not finite, and what `task.batches` raises.
    """
    device = device_of(encoder)
    rows = []
    with torch.inference_mode(), autocast("fp32", device):
        for number, batch in enumerate(task.batches(encoder, batch_size)):
            try:
                rows.append(encoder.clip(batch.to(device)).float().cpu())
            except ValueError as error:  # audio that no encoder takes
                some = f"{len(batch)} clips from {task.clips[number * batch_size].path} on"
                raise TrainingError(
                    f"evaluation task {task.name!r}: {some} have no features: {error}"
                ) from error
    x = torch.cat(rows).clone()  # (n, D); the clone leaves inference mode, so that autograd may use it
    if x.shape != (len(task.clips), encoder.embed_dim):
        wanted = f"one vector of embed_dim ({encoder.embed_dim}) per clip"
        gave = f"gave {tuple(x.shape)} for {len(task.clips)} clips"
        raise TrainingError(f"an encoder must give {wanted}, but {gave}")
    broken = (~x.isfinite().all(1)).nonzero().flatten()
    if len(broken):
        raise TrainingError(
            f"features of evaluation task {task.name!r} must be finite, but are not for {len(broken)} clips, "
            f"the first one {task.clips[int(broken[0])].path}"
        )
    return Features(x, targets_of(task))


def targets_of(task: EvaluationTask) -> Tensor:
    """Class numbers (n,) of the task's clips, multi-hot targets (n, C) of a multi-label task, or values (n,)."""
    targets = torch.from_numpy(task.targets())
    if not task.label_names:
        return targets[:, 0]
    return targets if task.multi_label else targets.argmax(1)


def read_ahead(batches: Iterable[Sequence[T]], read: Callable[[T], Tensor]) -> Iterator[Tensor]:
    """Stacks (B, ...) of what `read` gives for the items of each batch; the next is read while the caller works."""
    with ThreadPoolExecutor(READING_THREADS) as pool:
        waiting = ([pool.submit(read, item) for item in batch] for batch in batches)
        current = next(waiting, None)
        while current is not None:
            following = next(waiting, None)
            yield torch.stack([future.result() for future in current])
            current = following


class MeanLogMel(nn.Module):
    """Mean and standard deviation over time of the log-mel spectrogram, as clip features (B, 2 * M)."""

    def __init__(self, audio: AudioSection) -> None:
        super().__init__()
        self.sample_rate = audio.sample_rate
        self.frame_rate = audio.sample_rate / audio.hop_length
        self.embed_dim = 2 * audio.n_mels
        self.logmel = build_logmel(audio)

    @torch.no_grad()
    def clip(self, wav: Tensor) -> Tensor:
        """Features (B, 2 * M), the means first, from wav (B, N)."""
        bands = self.logmel(wav)[:, 0]  # (B, 1, M, L) -> (B, M, L)
        return torch.cat([bands.mean(-1), bands.std(-1, correction=0)], dim=-1)


class FrameStatistics(nn.Module):
    """Mean, deviation and maximum over time of an encoder's layers, as clip features (B, 3 * D * layers).

    The layers are the last block and those that are asked for. Raises RecipeError for a block that is not there.
    """

    def __init__(self, encoder: AudioEncoder, layers: Collection[int]) -> None:
        super().__init__()
        check_layers(encoder, layers)
        self.encoder, self.sample_rate = encoder, encoder.sample_rate
        self.layers = tuple(sorted({encoder.encoder.size.depth, *layers}))
        self.embed_dim = 3 * encoder.embed_dim * len(self.layers)
        self.train(encoder.training)

    def clip(self, wav: Tensor) -> Tensor:
        """Features (B, 3 * D * layers), layer after layer, from wav (B, N)."""
        parts = []
        for frames in self.encoder.layers(wav, self.layers):  # (B, T, D)
            parts += [frames.mean(1), frames.std(1, correction=0), frames.amax(1)]
        return torch.cat(parts, dim=1)

    def features(self, found: Features) -> Features:
        """Those of the encoder, from the features that `clip` gave."""
        parts = found.x.split(self.encoder.embed_dim, dim=1)
        layers = dict(zip(self.layers, map(OverTime, parts[::3], parts[1::3], parts[2::3]), strict=True))
        return Features(layers[self.layers[-1]].mean.contiguous(), found.y, layers)


def check_layers(encoder: object, layers: Collection[int], *, first: int = 0) -> None:
    """RecipeError where an encoder has not all of these blocks, counted from `first`; none of images has."""
    if isinstance(encoder, ImageEncoder) and layers:
        raise RecipeError("`layers` must not be numbers where the input is images; take last")
    depth = encoder.encoder.size.depth if isinstance(encoder, AudioEncoder) else math.inf
    if max(layers, default=0) > depth:
        last = max(layers)
        raise RecipeError(f"`layers` must be {first} to {depth}, the blocks of the encoder, but has {last}")


def blocks_spread(encoder: AudioEncoder) -> tuple[int, ...]:
    """The patch embedding (0), and up to five blocks at even distances, the last one included."""
    depth = encoder.encoder.size.depth
    return tuple(sorted({-(-depth * part // MOST_BLOCKS) for part in range(MOST_BLOCKS + 1)}))


@dataclass(frozen=True)
class FeatureCache:
    """Features in a folder, one safetensors file per encoder and task; it may be deleted at any time.

    A file belongs to what its features follow from: the encoder's class, its code, weights, buffers and settings; each
    clip's file (`audio_state`) and its place in the file; the length that clips are brought to, and how; and m2dx's
    version. A change of any makes another file; old ones stay. Files that cannot be written, or that are not what was
    written for it, by their checksum, are warned of, and the features computed.
    """

    folder: Path

    def features(self, encoder: ClipEncoder, task: EvaluationTask, *, batch_size: int) -> Features:
        """The task's features by the encoder, from the folder or computed and kept. Raises what `extract` raises."""
        if not isinstance(encoder, nn.Module):  # its settings cannot be known
            return extract(encoder, task, batch_size=batch_size)
        digest = digest_of_features(encoder, task, package_version())
        path = self.folder / f"{task.name}-{digest[:32]}.safetensors"
        x = _read(path, digest)
        if x is not None:
            return Features(x, targets_of(task))
        found = extract(encoder, task, batch_size=batch_size)
        about = {"task": task.name, "encoder": type(encoder).__qualname__, _KEY: digest}
        try:
            replace_file(path, tensors_writer({"x": found.x}, about), shared=True)
        except OSError as error:
            logger.warning("features are not kept: %s cannot be written: %s", path, error)
        return found


def digest_of_features(encoder: ClipEncoder, task: EvaluationTask, *others: object) -> str:
    """SHA-256 of all that features follow from, and of other values that JSON can write."""
    first = [type(encoder).__qualname__, *others, task.unit_seconds, task.short_clips]
    digest = hashlib.sha256(json.dumps(first).encode())
    for clip in task.clips:
        path = Path(clip.path)
        facts = [os.path.abspath(path), clip.start, clip.duration, *audio_state(path)]
        digest.update(json.dumps(facts).encode())
    if not isinstance(encoder, nn.Module):
        return digest.hexdigest()
    for name, module in encoder.named_modules():
        settings = {  # plain values, dataclasses and sections of them; not torch's own bookkeeping
            key: repr(value)
            for key, value in vars(module).items()
            if not key.startswith("_")
            and (is_dataclass(value) or isinstance(value, int | float | str | tuple | Section | None))
        }
        digest.update(json.dumps([name, type(module).__qualname__, settings], sort_keys=True).encode())
    for name, tensor in chain(encoder.named_parameters(), encoder.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + bytes_of(tensor))
    for file in _files_of_code(encoder):
        with contextlib.suppress(OSError):  # within an archive
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _files_of_code(encoder: nn.Module) -> list[str]:
    """Where the classes of its modules are written, as a plugin's author changes them; not torch's own."""
    classes = {kind for module in encoder.modules() for kind in type(module).__mro__}
    names = {kind.__module__ for kind in classes if kind.__module__.partition(".")[0] != "torch"}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in names}
    return sorted(filter(None, files))


def _read(path: Path, key: str) -> Tensor | None:
    if not path.exists():
        return None
    try:
        tensors, about = read_tensors(path)
    except CheckpointError as error:
        logger.warning("features are computed again, since %s", error)
        return None
    if about.get(_KEY) != key:
        logger.warning("features are computed again, since %s must hold those of %s, but does not", path, key)
        return None
    x: Tensor = tensors["x"]
    return x
