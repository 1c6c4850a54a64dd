"""Clip features on disk, so that another evaluation of the same encoder and clips need not compute them again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from itertools import chain
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from m2dx.contract.atomic import replace_file
from m2dx.contract.components import ClipEncoder, EvaluationTask, Features
from m2dx.contract.version import package_version
from m2dx.data.packs import audio_state
from m2dx.evaluation.features import bytes_of, extract, targets_of

logger = logging.getLogger(__name__)

CACHE_FOLDER = "features"
"""Folder of the cache, beside the runs."""


@dataclass(frozen=True)
class FeatureCache:
    """Features in a folder, one safetensors file per encoder and task; it may be deleted at any time.

    A file belongs to what its features follow from: the encoder's class, weights, buffers and settings; each clip's
    file (path, size, time of change) and its place in the file; the length that clips are brought to, and how; and the
    version of m2dx. A change of any makes another file; old ones stay. Files that cannot be read or written are
    warned of, and the features computed.
    """

    folder: Path

    def features(self, encoder: ClipEncoder, task: EvaluationTask, *, batch_size: int) -> Features:
        """The task's features by the encoder, from the folder or computed and kept. Raises what `extract` raises."""
        if not isinstance(encoder, nn.Module):  # its settings cannot be known
            return extract(encoder, task, batch_size=batch_size)
        path = self.folder / f"{task.name}-{_key(encoder, task)}.safetensors"
        x = _read(path, (len(task.clips), encoder.embed_dim))
        if x is not None:
            return Features(x, targets_of(task))
        found = extract(encoder, task, batch_size=batch_size)
        _write(path, found.x, encoder, task)
        return found


def _key(encoder: nn.Module, task: EvaluationTask) -> str:
    digest = hashlib.sha256(package_version().encode())
    for part in chain(_encoder_parts(encoder), _task_parts(task)):
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def _encoder_parts(encoder: nn.Module) -> Iterator[bytes]:
    for name, module in encoder.named_modules():
        settings = {key: repr(value) for key, value in vars(module).items() if _is_setting(key, value)}
        yield json.dumps([name, type(module).__qualname__, settings], sort_keys=True).encode()
    for name, tensor in chain(encoder.named_parameters(), encoder.named_buffers()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield bytes_of(tensor)


def _is_setting(key: str, value: object) -> bool:
    """Plain values and dataclasses of them; not torch's own bookkeeping."""
    return not key.startswith("_") and (
        is_dataclass(value) or isinstance(value, int | float | str | tuple | None)
    )


def _task_parts(task: EvaluationTask) -> Iterator[bytes]:
    yield json.dumps([task.unit_seconds, task.short_clips]).encode()
    for clip in task.clips:
        path = Path(clip.path)
        yield json.dumps([os.path.abspath(path), clip.start, clip.duration, *audio_state(path)]).encode()


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    try:
        x = load_file(path).get("x")
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("features are computed again, since %s cannot be read: %s", path, error)
        return None
    if x is None or x.shape != shape or not x.isfinite().all():
        logger.warning("features are computed again, since %s must hold finite ones of shape %s", path, shape)
        return None
    return x


def _write(path: Path, x: Tensor, encoder: nn.Module, task: EvaluationTask) -> None:
    about = {"task": task.name, "encoder": type(encoder).__qualname__, "m2dx": package_version()}
    try:
        data = save({"x": x.contiguous()}, metadata=about)
        replace_file(path, lambda file: file.write(data), shared=True)
    except (OSError, SafetensorError) as error:
        logger.warning("features are not kept: %s cannot be written: %s", path, error)
