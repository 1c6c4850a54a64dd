"""Losses against values computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from m2dx.contract.components import Loss
from m2dx.model.losses import BCE, MSE, CrossEntropy, NormMSE, standardise

NAN = float("nan")


def test_norm_mse_is_equation_2() -> None:
    """2 - 2 cos: 0 in the same direction, 2 at a right angle, 4 in the opposite one, whatever the lengths."""
    loss = NormMSE(standardise_target=False)
    target = torch.tensor([[3.0, 4.0]])
    assert loss(torch.tensor([[6.0, 8.0]]), target).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(torch.tensor([[-4.0, 3.0]]), target).item() == pytest.approx(2.0)
    assert loss(torch.tensor([[-0.3, -0.4]]), target).item() == pytest.approx(4.0)
    # (1, 0) against (3, 4) / 5: ||(1, 0) - (0.6, 0.8)||^2 = 0.16 + 0.64
    assert loss(torch.tensor([[1.0, 0.0]]), target).item() == pytest.approx(0.8)
    both = loss(torch.tensor([[[1.0, 0.0], [6.0, 8.0]]]), torch.tensor([[[3.0, 4.0], [3.0, 4.0]]]))
    assert both.item() == pytest.approx(0.4)  # the mean over vectors


def test_norm_mse_of_a_standardised_target() -> None:
    """(1, 2, 3) becomes (-1, 0, 1): its variance is 1. Against (0, 1, 1): cos = 1 / 2."""
    loss = NormMSE()
    assert loss(torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[1.0, 2.0, 3.0]])).item() == pytest.approx(1.0)


def test_standardise_uses_the_unbiased_variance() -> None:
    torch.testing.assert_close(
        standardise(torch.tensor([[1.0, 2.0, 3.0], [10.0, 30.0, 50.0]])),
        torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]),
        rtol=0,
        atol=1e-5,
    )
    assert standardise(torch.full((1, 4), 7.0)).abs().max() == 0  # no variance: no division by zero
    assert standardise(torch.randn(2, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_mse() -> None:
    assert MSE()(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])).item() == pytest.approx(6.5)


@pytest.mark.parametrize("loss", [MSE(), NormMSE()])
def test_frames_that_are_no_numbers_are_not_hidden(loss: Loss) -> None:
    target = torch.ones(2, 3, 4)
    target[0, 1] = NAN
    assert loss(torch.randn(2, 3, 4), target).isnan()


def test_cross_entropy() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(7.0)]])  # probabilities 3/4, 1/4 and 1/8, 7/8
    assert CrossEntropy()(logits[:1], torch.tensor([[1.0, 0.0]])).item() == pytest.approx(-math.log(3 / 4))
    two = CrossEntropy()(logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item()
    assert two == pytest.approx(-(math.log(3 / 4) + math.log(7 / 8)) / 2)


def test_cross_entropy_of_several_labels_is_their_mean() -> None:
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]])  # probabilities 1/2, 1/4, 1/4
    loss = CrossEntropy()(logits, torch.tensor([[1.0, 1.0, 0.0]])).item()
    assert loss == pytest.approx(-(math.log(1 / 2) + math.log(1 / 4)) / 2)


def test_bce() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])  # 3/4, 1/2
    loss = BCE()(logits, torch.tensor([[1.0, 0.0]])).item()
    assert loss == pytest.approx(-(math.log(3 / 4) + math.log(1 / 2)) / 2)


@pytest.mark.parametrize("loss", [CrossEntropy(), BCE(), MSE(), NormMSE()])
def test_rows_without_labels_add_zero(loss: Loss) -> None:
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]], requires_grad=True)
    known = torch.tensor([[1.0, 0.0]])
    value = loss(logits, torch.cat([known, torch.full((1, 2), NAN)]))
    assert value.item() == pytest.approx(loss(logits[:1], known).item() / 2)
    value.backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum() > 0 and logits.grad[1].abs().max() < 1e-7
    nothing = loss(logits, torch.full((2, 2), NAN))
    assert nothing.item() == pytest.approx(0, abs=1e-6)
    nothing.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [NormMSE(), MSE(), CrossEntropy(), BCE()])
def test_a_batch_may_be_split(loss: Loss, generator: torch.Generator) -> None:
    """The mean over equal parts is the whole's, whichever part the unlabelled rows are in."""
    prediction = torch.randn(8, 5, generator=generator)
    target = (torch.rand(8, 5, generator=generator) > 0.5).float()
    if isinstance(loss, CrossEntropy | BCE):
        target[5:] = NAN
    whole = loss(prediction, target)
    for parts in (2, 4):
        pieces: list[Tensor] = [
            loss(p, t) for p, t in zip(prediction.chunk(parts), target.chunk(parts), strict=True)
        ]
        torch.testing.assert_close(torch.stack(pieces).mean(), whole)


@pytest.mark.parametrize("loss", [NormMSE(), MSE(), CrossEntropy(), BCE()])
def test_losses_are_float32_under_autocast(loss: Loss) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(torch.randn(2, 3).bfloat16(), torch.eye(3)[:2])
    assert value.dtype == torch.float32 and value.shape == ()
