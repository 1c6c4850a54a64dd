"""Checks of the components that are torch modules: offline encoders, online mappers, losses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from m2dx.contract.components import (
    DataInfo,
    Loss,
    OfflineEncoder,
    OnlineMapper,
    TaskShapes,
    Views,
    Waveforms,
)
from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.model.views import at_rate
from m2dx.testing.rules import Subject
from m2dx.testing.tensors import check_module, check_reaches

LABELS = {"main": ("a", "b", "c")}
TRIAL_DATA = (
    DataInfo(16_000, 15_360, LABELS),  # 0.96 s
    DataInfo(16_000, 33_280, LABELS),  # 2.08 s
    DataInfo(32_000, 40_960, LABELS),  # 1.28 s
)
"""Crops that offline encoders are tried on, by default."""

TRIAL_SHAPES = tuple(
    TaskShapes((freq, time), 24, frames, 7)
    for freq, time in ((5, 6), (1, 13))
    for frames in (None, time, 2 * time + 1)
)
"""Ends that mappers are tried between, by default: one target per clip, one per token frame, more than that."""


def check_offline_encoder(cls: type[OfflineEncoder], data: DataInfo | None = None, /, **options: Any) -> None:
    """Checks an offline encoder on crops of several lengths, rates and batch sizes, and on silence.

    `data` replaces the trial crops (whose one labelled data set is called "main"). Raises `ComponentCheckError`.
    """
    subject = Subject.of("offline_encoder", cls, options)
    trials = TRIAL_DATA if data is None else (data,)
    for trial in trials:
        with subject.attempt(f"__init__ (crops of {trial.crop_samples} samples at {trial.sample_rate} Hz)"):
            encoder: OfflineEncoder = subject.build(data=trial).requires_grad_(False).eval()
        _check_declaration(subject, encoder)
        for batch in (1, 3):
            _check_target(subject, encoder, trial, trial_views(trial, batch=batch))
        silence = trial_views(trial, batch=2, level=0.0)
        _check_target(subject, encoder, trial, silence, audio="silence")
    trial = trials[0]
    views = at_rate(trial_views(trial, batch=3), encoder.sample_rate)

    def make(seed: int) -> nn.Module:
        module: nn.Module = subject.build(seed=seed, data=trial)
        return module.requires_grad_(False).eval()

    check_module(subject, make, lambda module, device: module(_views_on(views, device)))
    same = torch.allclose(make(0)(views), make(0)(views), atol=1e-6)
    subject.must(
        same,
        "two of them built under one torch seed must give the same output, since checkpoints leave offline encoders "
        "out and a resumed run builds them anew; draw random weights with torch",
    )


def trial_views(data: DataInfo, *, batch: int, level: float = 0.1) -> Views:
    """Views of white noise (RMS `level`), each clip with one label or two."""
    generator = torch.Generator().manual_seed(batch)
    assert data.crop_samples is not None and data.sample_rate is not None
    frames = data.crop_samples * 100 // data.sample_rate
    wav = torch.randn(batch, data.crop_samples, generator=generator) * level
    return Views(
        Waveforms(wav, data.sample_rate),
        clean_logmel=torch.randn(batch, 1, 80, frames, generator=generator),
        labels={name: multi_hot((batch, len(names)), generator) for name, names in data.label_names.items()},
    )


def multi_hot(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Rows of zeros with a one or two."""
    rows = torch.rand(shape, generator=generator)
    return (rows >= rows.topk(min(2, shape[-1]), dim=-1).values[..., -1:]).float()


def _views_on(views: Views, device: torch.device) -> Views:
    labels = {name: rows.to(device) for name, rows in views.labels.items()}
    waveforms = Waveforms(views.clean_wav.to(device), views.sample_rate)
    return Views(waveforms, views.clean_logmel.to(device), labels)


def _check_declaration(subject: Subject, encoder: OfflineEncoder) -> None:
    width = getattr(encoder, "embed_dim", None)
    subject.must(
        isinstance(width, int) and width > 0,
        f"embed_dim must be the width C of its output after __init__, but is {width!r}",
    )
    for name, numbers in (("sample_rate", int), ("frame_rate", int | float)):
        value = getattr(encoder, name)
        subject.must(
            value is None or (isinstance(value, numbers) and value > 0),
            f"{name} must be {'a whole number of' if numbers is int else 'in'} Hz, or None, but is {value!r}",
        )


def _check_target(
    subject: Subject, encoder: OfflineEncoder, data: DataInfo, views: Views, *, audio: str = "noise"
) -> None:
    """One forward pass as the engine does it, against what the encoder declares."""
    views = at_rate(views, encoder.sample_rate)
    batch, samples = views.clean_wav.shape
    where = f"{batch} x {samples} samples of {audio} at {views.sample_rate} Hz"
    before = [views.clean_wav.clone(), views.clean_logmel.clone()]
    with subject.attempt(f"forward on {where}"), torch.no_grad():
        target = encoder(views)
    with subject.attempt(f"num_frames({samples})"):
        frames = encoder.num_frames(samples)
    shape = (
        (batch, encoder.embed_dim) if frames is None else (batch, frames, encoder.embed_dim)
    )  # what tasks are built with
    subject.must(isinstance(target, Tensor), f"forward must give a tensor, but gave {type(target).__name__}")
    subject.must(
        tuple(target.shape) == shape,
        f"forward on {where} must give {shape}, as embed_dim and num_frames say, but gave {tuple(target.shape)}",
    )
    subject.must(
        target.is_floating_point(), f"its output must be floating point, but is of type {target.dtype}"
    )
    subject.must(bool(target.isfinite().all()), f"its output must be finite, but is not on {where}")
    frozen = not target.requires_grad and not any(p.requires_grad for p in encoder.parameters())
    subject.must(frozen, "no gradient may reach it: forward must not switch gradients on")
    subject.must(not encoder.training, "it must stay in eval mode: forward must not call train()")
    same = torch.equal(before[0], views.clean_wav) and torch.equal(before[1], views.clean_logmel)
    subject.must(same, "forward must not change the views, which other tasks see too")


def check_online_mapper(cls: type[OnlineMapper], shapes: TaskShapes | None = None, /, **options: Any) -> None:
    """Checks an online mapper between several pairs of shapes; those that it refuses with `RecipeError` are left out.

    `shapes` replaces the trial shapes. Raises `ComponentCheckError`.
    """
    subject = Subject.of("online_mapper", cls, options)
    fitting = list(_fitting_shapes(subject, TRIAL_SHAPES if shapes is None else (shapes,)))
    for accepted in fitting:
        _check_mapper_shapes(subject, accepted)
    tokens = _tokens(fitting[0], batch=3)
    make = partial(_build_mapper, subject, fitting[0])
    check_module(subject, make, lambda module, device: module(tokens.to(device)))
    mapper = make(0).train()
    given = tokens.clone().requires_grad_()
    with subject.attempt("forward in train mode"):
        prediction = mapper(given)
    check_reaches(subject, mapper, prediction.square().mean(), {"the tokens": given})


def _build_mapper(subject: Subject, shapes: TaskShapes, seed: int) -> nn.Module:
    module: nn.Module = subject.build(seed=seed, shapes=shapes)
    return module.eval()


def _tokens(shapes: TaskShapes, *, batch: int) -> Tensor:
    freq, time = shapes.grid
    return torch.randn(batch, freq * time, shapes.embed_dim, generator=torch.Generator().manual_seed(batch))


def _fitting_shapes(subject: Subject, trials: tuple[TaskShapes, ...]) -> Iterator[TaskShapes]:
    """Those that the mapper is built for; an error where there are none."""
    refusal, found = "", False
    for shapes in trials:
        try:
            subject.build(shapes=shapes)
        except RecipeError as error:
            refusal = str(error)
            continue
        except M2dxError as error:
            subject.fail(f"it must refuse shapes with m2dx.RecipeError, but raised {error!r}")
        found = True
        yield shapes
    subject.must(
        found, f"it must accept some shapes, but refuses all that were tried; the last time: {refusal}"
    )


def _check_mapper_shapes(subject: Subject, shapes: TaskShapes) -> None:
    mapper = _build_mapper(subject, shapes, 0)
    for batch in (1, 3):
        with subject.attempt(f"forward for {shapes}"), torch.no_grad():
            prediction = mapper(_tokens(shapes, batch=batch))
        frames, width = shapes.target_frames, shapes.target_dim
        wanted = (batch, width) if frames is None else (batch, frames, width)
        subject.must(
            tuple(prediction.shape) == wanted,
            f"forward must give {wanted} for {shapes}, but gave {tuple(prediction.shape)}; shapes that it cannot give "
            "must be refused in __init__ with m2dx.RecipeError",
        )
        subject.must(bool(prediction.isfinite().all()), "its output must be finite")


def check_loss(cls: type[Loss], target: Tensor | None = None, /, **options: Any) -> None:
    """Checks a loss on (B, C) and (B, S, C) targets, by default multi-hot ones; `target` replaces them.

    Raises `ComponentCheckError`.
    """
    subject = Subject.of("loss", cls, options)
    generator = torch.Generator().manual_seed(0)
    trials = [multi_hot((4, 7), generator), multi_hot((4, 6, 7), generator)] if target is None else [target]
    for trial in trials:
        prediction = torch.randn(trial.shape, generator=generator)
        _check_loss_value(subject, prediction, trial)
        with torch.autocast("cpu", torch.bfloat16):
            _check_loss_value(subject, prediction.bfloat16(), trial)

    def make(seed: int) -> nn.Module:
        module: nn.Module = subject.build(seed=seed)
        return module.eval()

    check_module(subject, make, lambda module, device: module(prediction.to(device), trial.to(device)))


def _check_loss_value(subject: Subject, prediction: Tensor, target: Tensor) -> None:
    loss = subject.build()
    given, before = prediction.clone().requires_grad_(), target.clone()
    where = f"a prediction {tuple(target.shape)} of type {prediction.dtype}"
    with subject.attempt(f"forward on {where}"):
        value = loss(given, target)
    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    subject.must(shape == (), f"it must give a scalar, but gave {shape} for {where}")
    subject.must(bool(value.isfinite()), f"it must be finite, but is {value.item()} for {where}")
    subject.must(torch.equal(before, target), "forward must not change the target")
    check_reaches(subject, loss, value, {"the prediction": given})
