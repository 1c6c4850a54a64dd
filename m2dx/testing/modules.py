"""Checks of the components that are torch modules: offline encoders, online mappers, losses, regularisers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from m2dx.contract.components import (
    DataInfo,
    Loss,
    MaskedModelOutput,
    OfflineEncoder,
    OnlineMapper,
    Regulariser,
    TaskShapes,
    Views,
    Waveforms,
)
from m2dx.model.views import at_rate, tensors_of
from m2dx.testing.rules import Subject
from m2dx.testing.tensors import check_module, check_reaches

LABELS = {"main": ("a", "b", "c")}
TRIAL_DATA = (
    DataInfo(16_000, 15_360, LABELS),  # 0.96 s
    DataInfo(16_000, 33_280, LABELS),  # 2.08 s
    DataInfo(32_000, 40_960, LABELS),  # 1.28 s
)
"""Default crops on which offline encoders are tried."""

TRIAL_SHAPES = tuple(
    TaskShapes((freq, time), 24, frames, 7)
    for freq, time in ((5, 6), (1, 13))
    for frames in (None, time, 2 * time + 1)
)
"""Default shapes for which mappers are tried: one target per clip, one per token frame, more than that."""


def check_offline_encoder(cls: type[OfflineEncoder], data: DataInfo | None = None, /, **options: Any) -> None:
    """Checks an offline encoder on crops of several lengths, rates and batch sizes, and on silence.

    `data` replaces the trial crops (whose one labelled data set is called "main").
    """
    subject = Subject.of("offline_encoder", cls, options)
    trials = TRIAL_DATA if data is None else (data,)
    for trial in trials:
        encoder = _frozen(subject, trial)
        for name, numbers in (("embed_dim", int), ("sample_rate", int), ("frame_rate", int | float)):
            value = getattr(encoder, name, None)
            unit = "the width C of its output" if name == "embed_dim" else "a number of Hz, or None,"
            subject.must(
                (value is None and name != "embed_dim") or (isinstance(value, numbers) and value > 0),
                f"{name} must be {unit} after __init__ (of type {numbers}), but is {value!r}",
            )
        for batch, level, audio in ((1, 0.1, "noise"), (3, 0.1, "noise"), (2, 0.0, "silence")):
            views = at_rate(_views(trial, batch, level=level), encoder.sample_rate)
            _check_signal(subject, encoder, views, audio)
    views = at_rate(_views(trials[0], 3), encoder.sample_rate)
    check_module(subject, lambda module, device: module(_on(views, device)), data=trials[0])
    first, again = (_frozen(subject, trials[0])(views) for _ in range(2))
    subject.must(
        torch.allclose(first, again, atol=1e-6),
        "two of them built under one torch seed must give the same output, since checkpoints leave offline encoders "
        "out and a resumed run builds them anew; draw random weights with torch",
    )


def _frozen(subject: Subject, data: DataInfo) -> OfflineEncoder:
    encoder: OfflineEncoder = subject.build(data=data)
    return encoder.requires_grad_(False).eval()


def _views(data: DataInfo, batch: int, *, level: float = 0.1) -> Views:
    """Views of white noise (RMS `level`); each clip has one or two labels."""
    generator = torch.Generator().manual_seed(batch)
    assert data.crop_samples is not None and data.sample_rate is not None
    frames = data.crop_samples * 100 // data.sample_rate
    wav = torch.randn(batch, data.crop_samples, generator=generator) * level
    return Views(
        Waveforms(wav, data.sample_rate),
        clean_logmel=torch.randn(batch, 1, 80, frames, generator=generator),
        labels={name: _multi_hot((batch, len(names)), generator) for name, names in data.label_names.items()},
    )


def _multi_hot(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Rows of zeros with one or two ones."""
    rows = torch.rand(shape, generator=generator)
    return (rows >= rows.topk(min(2, shape[-1]), dim=-1).values[..., -1:]).float()


def _on(views: Views, device: torch.device) -> Views:
    labels = {name: rows.to(device) for name, rows in views.labels.items()}
    waveforms = Waveforms(views.clean_wav.to(device), views.sample_rate)
    return Views(waveforms, views.clean_logmel.to(device), labels)


def _check_signal(subject: Subject, encoder: OfflineEncoder, views: Views, audio: str) -> None:
    """Checks a forward pass, run as the engine does, against what the encoder declares."""
    batch, samples = views.clean_wav.shape
    where = f"forward on {batch} x {samples} samples of {audio} at {views.sample_rate} Hz"
    before = [given.clone() for given in tensors_of(views)]
    with subject.attempt(where), torch.no_grad():
        signal = encoder(views)
    with subject.attempt(f"num_frames({samples})"):
        frames = encoder.num_frames(samples)
    subject.check_output(signal, (batch, *([] if frames is None else [frames]), encoder.embed_dim), where)
    frozen = not signal.requires_grad and not any(p.requires_grad for p in encoder.parameters())
    subject.must(frozen, "no gradient may reach it: forward must not switch gradients on")
    subject.must(not encoder.training, "it must stay in eval mode: forward must not call train()")
    same = all(map(torch.equal, before, tensors_of(views)))
    subject.must(same, "forward must not change the views, which other tasks see too")


def check_online_mapper(cls: type[OnlineMapper], shapes: TaskShapes | None = None, /, **options: Any) -> None:
    """Checks an online mapper for several pairs of shapes; it may refuse some of them with `RecipeError`.

    `shapes` replaces the trial shapes.
    """
    subject = Subject.of("online_mapper", cls, options)
    fitting = subject.accepted({"shapes": trial} for trial in (TRIAL_SHAPES if shapes is None else (shapes,)))
    for offered in fitting:
        trial, mapper = offered["shapes"], subject.build(**offered).eval()
        wanted = (*filter(None, (trial.target_frames,)), trial.target_dim)
        for batch in (1, 3):
            with subject.attempt(f"forward for {trial}"), torch.no_grad():
                prediction = mapper(_tokens(trial, batch))
            refusal = "; shapes that it cannot give must be refused in __init__ with m2dx.RecipeError"
            subject.check_output(prediction, (batch, *wanted), f"forward for {trial}", refusal)
    tokens = _tokens(fitting[0]["shapes"], 3)
    check_module(subject, lambda module, device: module(tokens.to(device)), **fitting[0])
    mapper, given = subject.build(**fitting[0]).train(), tokens.clone().requires_grad_()
    with subject.attempt("forward in train mode"):
        prediction = mapper(given)
    check_reaches(subject, mapper, prediction.square().mean(), tokens=given)


def _tokens(shapes: TaskShapes, batch: int) -> Tensor:
    freq, time = shapes.grid
    return torch.randn(batch, freq * time, shapes.embed_dim, generator=torch.Generator().manual_seed(batch))


def check_regulariser(cls: type[Regulariser], shapes: TaskShapes | None = None, /, **options: Any) -> None:
    """Checks a regulariser on features without a training signal, and with signals of several shapes.

    It may refuse some of them with `RecipeError`; `shapes` replaces them.
    """
    subject = Subject.of("regulariser", cls, options)
    alone = TaskShapes((5, 6), 24, None, 0)
    trials = (alone, *TRIAL_SHAPES) if shapes is None else (shapes,)
    for offered in subject.accepted({"shapes": trial} for trial in trials):
        trial, regulariser = offered["shapes"], subject.build(**offered).train()
        tokens = _tokens(trial, 6).requires_grad_()
        with subject.attempt(f"forward for {trial}"):
            loss = regulariser(*_features(tokens, trial))
        subject.check_output(loss, (), f"forward for {trial}")
        check_reaches(subject, regulariser, loss, features=tokens)
        check_module(subject, partial(_regularised, trial), **offered)


def _regularised(shapes: TaskShapes, module: nn.Module, device: torch.device) -> Tensor:
    loss: Tensor = module(*_features(_tokens(shapes, 6).to(device), shapes))
    return loss


def _features(tokens: Tensor, shapes: TaskShapes) -> tuple[MaskedModelOutput, Tensor | None]:
    """A method's output, a third of the patches visible, and a training signal, where the shapes have one."""
    visible, masked = tokens.tensor_split([tokens.shape[1] // 3], dim=1)
    latent = torch.cat([tokens.mean(1, keepdim=True), visible], dim=1)
    output = MaskedModelOutput(masked.mean(), latent, masked, masked.detach(), tokens)
    if not shapes.target_dim:
        return output, None
    sizes = (len(tokens), *filter(None, (shapes.target_frames,)), shapes.target_dim)
    return output, torch.randn(sizes, generator=torch.Generator().manual_seed(0)).to(tokens.device)


def check_loss(cls: type[Loss], target: Tensor | None = None, /, **options: Any) -> None:
    """Checks a loss on (B, C) and (B, S, C) targets, by default multi-hot ones; `target` replaces them."""
    subject = Subject.of("loss", cls, options)
    generator = torch.Generator().manual_seed(0)
    trials = [_multi_hot((4, 7), generator), _multi_hot((4, 6, 7), generator)] if target is None else [target]
    for trial in trials:
        prediction = torch.randn(trial.shape, generator=generator)
        _check_value(subject, prediction, trial)
        with torch.autocast("cpu", torch.bfloat16):
            _check_value(subject, prediction.bfloat16(), trial)
    check_module(subject, lambda module, device: module(prediction.to(device), trial.to(device)))


def _check_value(subject: Subject, prediction: Tensor, target: Tensor) -> None:
    loss, given, before = subject.build(), prediction.clone().requires_grad_(), target.clone()
    where = f"forward on a prediction {tuple(target.shape)} of type {prediction.dtype}"
    with subject.attempt(where):
        value = loss(given, target)
    subject.check_output(value, (), where)
    subject.must(torch.equal(before, target), "forward must not change the target")
    check_reaches(subject, loss, value, prediction=given)
