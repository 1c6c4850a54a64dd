"""The check of methods, on a small spectrogram and a small image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from m2dx.contract.components import Mask, MaskedModel, MaskedModelOutput, PatchGrid, ViTSize
from m2dx.model.vit import Encoder, encoder_of
from m2dx.testing.rules import Subject
from m2dx.testing.tensors import check_module, check_reaches

TRIAL_GRIDS = (PatchGrid((80, 64), (16, 16)), PatchGrid((16, 24), (8, 8), in_chans=3))
"""Default inputs on which methods are tried: the log-mel of 0.64 s, and an image."""
SIZE, PREDICTOR = ViTSize(24, 2, 2), ViTSize(16, 2, 2)
CLIPS = 3


def check_method(cls: type[MaskedModel], grid: PatchGrid | None = None, /, **options: object) -> None:
    """Checks a method on two inputs: its encoder, its output with and without tasks, gradients, a step, its state.

    `grid` replaces the trial inputs.
    """
    subject = Subject.of("method", cls, options)
    for trial in TRIAL_GRIDS if grid is None else (grid,):
        offered: dict[str, Any] = {"grid": trial, "size": SIZE, "predictor": PREDICTOR, "backbone": Encoder}
        with subject.attempt(f"the encoder for an input of {trial.input_size}"):
            model: MaskedModel = subject.build(**offered, with_tokens=True)
            encoder = encoder_of(model)
        subject.must(
            (encoder.grid, encoder.size) == (trial, SIZE),
            f"`online` must be of the grid and size that the engine offers ({trial}, {SIZE}), but is of "
            f"{encoder.grid} and {encoder.size}",
        )
        alone = subject.build(**offered, with_tokens=False).eval()
        _run(subject, alone, trial, tokens=False)
        _run(subject, model.eval(), trial)
        _run(subject, model, trial, masks=2)
        _check_step(subject, model.train(), trial)

    def values(module: nn.Module, device: torch.device) -> Tensor:
        logmel, mask = batch(trial)
        logmel, mask = logmel.to(device), Mask(mask.ids_shuffle.to(device), mask.num_visible)
        output = module(logmel, mask, **_others(module, logmel))
        return torch.cat([output.loss.reshape(1), output.tokens.flatten()])

    check_module(subject, values, **offered, with_tokens=True)


def batch(grid: PatchGrid, masks: int = 1) -> tuple[Tensor, Mask]:
    """An input of noise (B, C, M, L), and masks of each clip that leave about a third of the patches visible."""
    generator = torch.Generator().manual_seed(0)
    logmel = torch.randn(CLIPS, grid.in_chans, *grid.input_size, generator=generator)
    ids = torch.rand(masks * CLIPS, grid.num_patches, generator=generator).argsort(dim=1)
    return logmel, Mask(ids, grid.num_patches // 3)


def _others(model: Any, logmel: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """Further views, where the method wants them."""
    count = model.num_views - 1
    return {"others": (logmel * 0.9,) * count} if count else {}


def _run(
    subject: Subject, model: MaskedModel, grid: PatchGrid, *, tokens: bool = True, masks: int = 1
) -> MaskedModelOutput:
    """The output of a forward pass, after checking its type and shapes."""
    logmel, mask = batch(grid, masks)
    before, rows = logmel.clone(), masks * CLIPS
    given = f"{mask.num_visible} visible patches and {masks} masks per clip"
    with subject.attempt(f"forward of {tuple(logmel.shape)} with {given}"):
        output = model(logmel, mask, with_tokens=tokens, **_others(model, logmel))
    if not isinstance(output, MaskedModelOutput):
        subject.fail(f"forward must give m2dx.MaskedModelOutput, but gave {type(output).__name__}")
    subject.must(torch.equal(before, logmel), "forward must not change its input")
    wanted: dict[str, tuple[int, ...]] = {"loss": (), "latent": (rows, 1 + mask.num_visible, SIZE.embed_dim)}
    if tokens:
        wanted["tokens"] = (rows, grid.num_patches, SIZE.embed_dim)
    if model.reconstructs:
        wanted["prediction"] = (rows, grid.num_patches, grid.patch_values)
    for name, shape in wanted.items():
        subject.check_output(getattr(output, name), shape, f"forward's `{name}`")
    subject.must(tokens or output.tokens is None, "`tokens` must be None where they are not asked for")
    return output


def _check_step(subject: Subject, model: MaskedModel, grid: PatchGrid) -> None:
    """Checks one step, with a task that uses all tokens."""
    output = _run(subject, model, grid)
    assert output.tokens is not None
    check_reaches(subject, model, output.loss + output.tokens.square().mean(), may_freeze=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with subject.attempt("after_step"):
        shown = model.after_step(0.5)
    numbers = all(isinstance(value, int | float) for value in shown.values())
    subject.must(numbers, f"after_step must give numbers by name, for the line of metrics, but gave {shown}")
    same = all(torch.equal(value, model.get_parameter(name)) for name, value in before.items())
    subject.must(same, "after_step must leave trained parameters to the optimizer")
    children = {name for name, _ in model.named_children()} - {"online"}
    with subject.attempt("complete_start"):
        started = model.complete_start(sorted(children))
    others = ", ".join(started.keys() - children)
    subject.must(not others, f"complete_start must name children that are missing, but named {others}")
