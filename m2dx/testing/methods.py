"""The check of methods, on a small spectrogram and a small image."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from m2dx.contract.components import Mask, MaskedModel, MaskedModelOutput
from m2dx.contract.errors import PluginError
from m2dx.model.patches import PatchGrid
from m2dx.model.vit import Encoder, ViTSize, encoder_of
from m2dx.testing.rules import Subject
from m2dx.testing.tensors import check_module

TRIAL_GRIDS = (PatchGrid((80, 64), (16, 16)), PatchGrid((16, 24), (8, 8), in_chans=3))
"""Inputs that methods are tried on, by default: the log-mel of 0.64 s, and an image."""
SIZE, PREDICTOR = ViTSize(24, 2, 2), ViTSize(16, 2, 2)
CLIPS = 3


def check_method(cls: type[MaskedModel], grid: PatchGrid | None = None, /, **options: object) -> None:
    """Checks a method on two inputs: its encoder, its output with and without tasks, gradients, a step, its state.

    `grid` replaces the trial inputs. Raises `ComponentCheckError`.
    """
    subject = Subject.of("method", cls, options)
    for trial in TRIAL_GRIDS if grid is None else (grid,):
        with subject.attempt(f"__init__ for an input of {trial.input_size}"):
            model = _build(subject, trial, 0)
        _check_encoder(subject, model, trial)
        alone: MaskedModel = subject.build(grid=trial, size=SIZE, predictor=PREDICTOR, with_tokens=False)
        _check_output(subject, alone, _run(subject, alone, trial, with_tokens=False), trial, tokens=False)
        _check_output(subject, model, _run(subject, model, trial), trial, tokens=True)
        _check_step(subject, model, trial)

    def values(module: nn.Module, device: torch.device) -> Tensor:
        logmel, mask = trial_batch(trial)
        output: MaskedModelOutput = module(
            logmel.to(device), Mask(mask.ids_shuffle.to(device), mask.num_visible)
        )
        assert output.tokens is not None
        return torch.cat([output.loss.reshape(1), output.tokens.flatten()])

    check_module(subject, partial(_build, subject, trial), values)


def trial_batch(grid: PatchGrid) -> tuple[Tensor, Mask]:
    """An input of noise (B, C, M, L), and masks that leave about a third of the patches visible."""
    generator = torch.Generator().manual_seed(0)
    logmel = torch.randn(CLIPS, grid.in_chans, *grid.input_size, generator=generator)
    ids = torch.rand(CLIPS, grid.num_patches, generator=generator).argsort(dim=1)
    return logmel, Mask(ids, grid.num_patches // 3)


def _build(subject: Subject, grid: PatchGrid, seed: int) -> MaskedModel:
    model: MaskedModel = subject.build(seed=seed, grid=grid, size=SIZE, predictor=PREDICTOR, with_tokens=True)
    return model.eval()


def _run(
    subject: Subject, model: MaskedModel, grid: PatchGrid, *, with_tokens: bool = True
) -> MaskedModelOutput:
    logmel, mask = trial_batch(grid)
    before = logmel.clone()
    with subject.attempt(f"forward of {tuple(logmel.shape)} with {mask.num_visible} visible patches"):
        output = model(logmel, mask, with_tokens=with_tokens)
    subject.must(
        isinstance(output, MaskedModelOutput),
        f"forward must give m2dx.MaskedModelOutput, but gave {type(output).__name__}",
    )
    subject.must(torch.equal(before, logmel), "forward must not change its input")
    assert isinstance(output, MaskedModelOutput)
    return output


def _check_encoder(subject: Subject, model: MaskedModel, grid: PatchGrid) -> None:
    try:
        encoder = encoder_of(model)
    except PluginError as error:
        subject.fail(str(error))
    subject.must(
        (encoder.grid, encoder.size) == (grid, SIZE),
        f"`online` must be of the grid and size that the engine offers ({grid}, {SIZE}), but is of {encoder.grid} and "
        f"{encoder.size}",
    )
    with subject.attempt("loading the state of `online` into an encoder, as an export is read,"):
        Encoder(grid, SIZE).load_state_dict(encoder.state_dict())
    subject.must(
        any(part is encoder.trunk for part in model.transformers()),
        "transformers() must list the encoder's trunk",
    )


def _check_output(
    subject: Subject, model: MaskedModel, output: MaskedModelOutput, grid: PatchGrid, *, tokens: bool
) -> None:
    visible, width = grid.num_patches // 3, SIZE.embed_dim
    wanted: dict[str, tuple[int, ...]] = {"loss": (), "latent": (CLIPS, 1 + visible, width)}
    if tokens:
        wanted["tokens"] = (CLIPS, grid.num_patches, width)
    if model.reconstructs:
        wanted["prediction"] = (CLIPS, grid.num_patches, grid.patch_values)
    for name, shape in wanted.items():
        value = getattr(output, name)
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        subject.must(found == shape, f"its output's `{name}` must be {shape}, but is {found}")
        subject.must(bool(value.isfinite().all()), f"its output's `{name}` must be finite")
    if not tokens:
        subject.must(output.tokens is None, "`tokens` must be None where they are not asked for")


def _check_step(subject: Subject, model: MaskedModel, grid: PatchGrid) -> None:
    """One step, with a task that looks at all tokens."""
    output = _run(subject, model.train(), grid)
    assert output.tokens is not None
    with subject.attempt("the backward pass"):
        (output.loss + output.tokens.square().mean()).backward()
    for name, parameter in model.named_parameters():
        subject.must(
            (parameter.grad is not None) == parameter.requires_grad,
            f"a gradient must reach every trained parameter, but none reaches {name}; remove it, or freeze it with "
            "requires_grad_(False)",
        )
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with subject.attempt("after_step"):
        shown = model.after_step(0.5)
    numbers = all(isinstance(value, int | float) for value in shown.values())
    subject.must(numbers, f"after_step must give numbers by name, for the line of metrics, but gave {shown}")
    same = all(torch.equal(value, model.get_parameter(name)) for name, value in before.items())
    subject.must(same, "after_step must leave trained parameters to the optimizer")
    children = {name for name, _ in model.named_children()}
    with subject.attempt("complete_start"):
        started = model.complete_start(sorted(children - {"online"}))
    subject.must(
        started.keys() <= children - {"online"},
        f"complete_start must name children that are missing, but named {', '.join(started)}",
    )
