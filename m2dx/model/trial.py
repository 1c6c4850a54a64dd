"""Trials before training: what the components of a task must keep to, in eval mode, each blamed by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from m2dx.contract.components import OfflineEncoder, Views
from m2dx.contract.errors import M2dxError, PluginError
from m2dx.contract.host import CORE
from m2dx.model.views import at_rate

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost
    from m2dx.model.multitask import Task


@dataclass(frozen=True)
class Part:
    """A component of a task, as errors name it."""

    task: str
    kind: str
    name: str
    plugin: str | None  # None: not known, or the core

    @classmethod
    def of(cls, task: str, kind: str, name: str, *, host: PluginHost | None) -> Part:
        """The component, with its plugin where there is a host that knows it."""
        plugin = None if host is None else host.plugin_of(kind, name)
        return cls(task, kind, name, None if plugin == CORE else plugin)

    def __str__(self) -> str:
        origin = "" if self.plugin is None else f" of plugin {self.plugin!r}"
        return f"tasks.{self.task}.{self.kind} ({self.name!r}{origin})"

    def must(self, holds: bool, text: str) -> None:
        """Raises `PluginError` with the text unless the condition holds."""
        if not holds:
            raise PluginError(f"{self}: {text}")

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Names the component in what it raises; `PluginError` where that is not an error of m2dx itself."""
        try:
            yield
        except M2dxError as error:
            error.args = (f"{self}: {error}",)  # in place, to keep its type
            raise
        except Exception as error:
            raise PluginError.failed(f"{self}: {what}", error) from error

    def must_give(self, output: object, shape: tuple[int, ...], why: str) -> None:
        """Raises `PluginError`, with both shapes, unless the output is a floating-point tensor of the shape."""
        found = _shape(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
        self.must(found == _shape(shape), f"forward must give {_shape(shape)}, {why}, but gave {found}")
        assert isinstance(output, Tensor)
        self.must(
            output.is_floating_point(), f"forward must give floating-point values, but gave {output.dtype}"
        )


def check_declaration(part: Part, encoder: OfflineEncoder) -> None:
    """Raises `PluginError` where an offline encoder's width or sampling rate cannot be."""
    width = getattr(encoder, "embed_dim", "missing")
    part.must(
        isinstance(width, int) and width > 0,
        f"embed_dim must be the width C of its output, set in the class or in __init__, but is {width}",
    )
    rate = encoder.sample_rate
    part.must(
        rate is None or (isinstance(rate, int) and rate > 0),
        f"sample_rate must be a whole number of Hz, or None, but is {rate!r}",
    )


def declared_frames(part: Part, encoder: OfflineEncoder, num_samples: int) -> int | None:
    """Frames S that an offline encoder declares for N samples at its rate, or None; `PluginError` for others."""
    with part.attempt(f"num_frames({num_samples})"):
        frames = encoder.num_frames(num_samples)
    part.must(
        frames is None or (isinstance(frames, int) and frames > 0),
        f"num_frames must give 1 frame or more, or None, but gave {frames!r} for a crop of {num_samples} samples",
    )
    return frames


@torch.no_grad()
def try_task(
    name: str, task: Task, tokens: Tensor, views: Views, *, host: PluginHost | None = None
) -> tuple[int, ...]:
    """The training signal's shape without the batch, from one pass to the loss in eval mode, which leaves no trace.

    Raises `PluginError`, naming the component, where one fails or gives another shape than it must.
    """
    encoder = Part.of(name, "offline_encoder", task.offline_encoder.name, host=host)
    mapper = Part.of(name, "online_mapper", task.online_mapper.name, host=host)
    loss = Part.of(name, "loss", task.loss.name, host=host)
    with evaluating(task), torch.random.fork_rng(devices=[]):
        views = at_rate(views, task.offline_encoder.sample_rate)
        with encoder.attempt("forward on a trial batch"):
            signal = task.offline_encoder(views)
        frames = None
        if views.waveforms is not None:
            frames = declared_frames(encoder, task.offline_encoder, views.clean_wav.shape[1])
        middle = () if frames is None else (frames,)
        declared = (len(tokens), *middle, task.offline_encoder.embed_dim)
        encoder.must_give(signal, declared, "as embed_dim and num_frames declare")
        target = task.at_token_frames(signal)
        with mapper.attempt("forward on a trial batch"):
            prediction = task.online_mapper(tokens)
        mapper.must_give(prediction, tuple(target.shape), "the shape of the training signal")
        with loss.attempt("forward on a trial batch"):
            value = task.loss(prediction, target)
        loss.must_give(value, (), "a scalar")
    return tuple(target.shape[1:])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, so that no BatchNorm learns from a trial batch; after it, each part's mode as it was."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _shape(sizes: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, sizes))})"
