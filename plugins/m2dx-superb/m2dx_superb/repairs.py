"""What s3prl 0.4.18 needs to run with today's packages. Put in place in the process that runs s3prl, and only there.

s3prl is of 2023. Since then torchaudio has lost its file reading, SoX and back ends, huggingface_hub two names, pandas
one, and `torch.load` reads no arbitrary objects. Some packages that it imports are not needed on the way of the six
tasks; they are replaced by empty modules.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from m2dx_superb import sox

UNUSED = {
    "chunk": (),
    "catalyst": (),
    "catalyst.data": (),
    "catalyst.data.sampler": ("DistributedSamplerWrapper",),
    "sox": ("Transformer",),
    "more_itertools": (),
    "sed_eval": (),
    "sed_eval.sound_event": ("EventBasedMetrics", "SegmentBasedMetrics", "SoundEventMetrics"),
    "dcase_util": (),
    "dcase_util.containers": ("MetaDataContainer",),
}
"""Modules that s3prl imports and does not need here, with the names that it imports from them."""


class AudioInfo(NamedTuple):
    """What `torchaudio.info` told of a file."""

    sample_rate: int
    num_frames: int
    num_channels: int
    bits_per_sample: int = 0
    encoding: str = "UNKNOWN"


class Unavailable:
    """Stands for something that s3prl imports but does not need here; it cannot be used."""

    def __init__(self, *arguments: object, **options: object) -> None:
        raise RuntimeError(f"{type(self).__name__} is not available under m2dx superb")


def apply_repairs() -> None:
    """Makes s3prl importable and usable in this process. Must be called before the first import of s3prl."""
    _repair_torchaudio()
    _repair_hub()
    _repair_pandas()
    _repair_checkpoints()
    _repair_processes()
    for name, names in UNUSED.items():
        if _is_missing(name):
            module = sys.modules[name] = _stub(name, names)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)


def _repair_torchaudio() -> None:
    """`set_audio_backend` and `sox_effects` are gone; `load`, `save` and `info` want another package, or are gone."""
    import torchaudio

    effects = ModuleType("torchaudio.sox_effects")
    members: dict[str, Any] = {
        "apply_effects_tensor": sox.apply_effects_tensor,
        "apply_effects_file": sox.apply_effects_file,
    }
    vars(effects).update(members)
    sys.modules["torchaudio.sox_effects"] = effects
    replaced: dict[str, Any] = {
        "sox_effects": effects,
        "set_audio_backend": _set_audio_backend,
        "load": _load,
        "info": _info,
        "save": _save,
    }
    for name, value in replaced.items():
        setattr(torchaudio, name, value)


def _set_audio_backend(backend: str | None) -> None:
    """Nothing: soundfile reads all files."""


def _load(path: str | Path, frame_offset: int = 0, num_frames: int = -1) -> tuple[Any, int]:
    return sox.read(path, start=frame_offset, frames=num_frames)


def _info(path: str | Path) -> AudioInfo:
    import soundfile

    info = soundfile.info(path)
    return AudioInfo(info.samplerate, info.frames, info.channels)


def _save(path: str | Path, src: Any, sample_rate: int) -> None:
    import soundfile

    soundfile.write(path, src.detach().cpu().T.numpy(), sample_rate)


def _repair_hub() -> None:
    """`HfFolder` and `Repository` were for uploads and log-in."""
    import huggingface_hub

    for name in ("HfFolder", "Repository"):
        if not hasattr(huggingface_hub, name):
            setattr(huggingface_hub, name, type(name, (Unavailable,), {}))


def _repair_pandas() -> None:
    """`Series.iteritems` is now `items`."""
    import pandas

    if not hasattr(pandas.Series, "iteritems"):
        pandas.Series.iteritems = pandas.Series.items


def _repair_checkpoints() -> None:
    """Checkpoints of run_downstream hold their arguments, an `argparse.Namespace`."""
    import torch

    torch.serialization.add_safe_globals([argparse.Namespace])


def _repair_processes() -> None:
    """Other processes must have these repairs: loaders as copies of this one; threads for joblib, which copies none."""
    import joblib

    joblib.parallel_config(backend="threading")
    if "fork" in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("fork", force=True)


def _is_missing(name: str) -> bool:
    parent = name.rpartition(".")[0]
    if parent and isinstance(sys.modules.get(parent), _Stub):
        return True
    return name not in sys.modules and importlib.util.find_spec(name) is None


class _Stub(ModuleType):
    """An empty module in place of one that is not installed."""


def _stub(name: str, names: tuple[str, ...]) -> _Stub:
    module = _Stub(name)
    module.__path__ = []  # so that it may have submodules
    for member in names:
        setattr(module, member, type(member, (Unavailable,), {}))
    return module
