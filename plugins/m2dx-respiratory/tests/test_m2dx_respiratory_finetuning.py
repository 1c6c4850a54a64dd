"""Training of classifiers: loss, order, masks, schedule and tests, each against what it is said to do."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from m2dx_respiratory.confusion import RespiratoryScores
from m2dx_respiratory.finetuning import (
    EpochResult,
    FinetunedClassifier,
    FitData,
    FitSettings,
    LinearClassifier,
    Schedule,
    best_epoch,
    fit,
    mask_stripes,
)
from m2dx_respiratory.units import logmel_units
from torch import Tensor, nn

import m2dx

SETTINGS = FitSettings(
    epochs=2,
    batch_size=6,
    accumulate=1,
    learning_rate=1e-3,
    schedule="constant",
    weight_decay=0.0,
    precision="fp32",
)


def small_data(**changes: object) -> FitData:
    """Data on which the classes of 12 "features" (n, 4) can be told apart; the last four rows are the test."""
    y = torch.arange(12) % 4
    inputs = nn.functional.one_hot(y, 4).float() + 0.1 * torch.randn(
        12, 4, generator=torch.Generator().manual_seed(0)
    )
    data = FitData(inputs, y, torch.arange(8), torch.arange(8, 12), num_classes=4, normal=0)
    return replace(data, **changes)  # type: ignore[arg-type]


def test_weights_are_inverse_to_the_training_cycles_of_a_class() -> None:
    y = torch.tensor([0] * 6 + [1] * 3 + [2] * 1 + [1] * 50)
    weights = small_data(y=y, train=torch.arange(10)).class_weights()
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 10 / 3, 0.0]))


def test_the_first_of_equally_good_epochs_is_the_best_one() -> None:
    matrices = [[[1, 1], [1, 1]], [[2, 0], [1, 1]], [[1, 1], [0, 2]], [[0, 2], [2, 0]]]
    results = [
        EpochResult(matrix, RespiratoryScores.of(matrix, normal=0)) for matrix in map(torch.tensor, matrices)
    ]
    assert best_epoch(results) == 1


def trained(
    data: FitData, settings: FitSettings, make: Callable[[], nn.Module] | None = None, *, seed: int = 0
) -> tuple[nn.Module, list[EpochResult]]:
    models: list[nn.Module] = []

    def build() -> nn.Module:
        models.append(LinearClassifier(data.inputs[data.train], 4) if make is None else make())
        return models[0]

    results = fit(build, data, settings, device=torch.device("cpu"), seed=seed, what="trial")
    return models[0], results


def whole_network(
    encoder: m2dx.AudioEncoder, task: m2dx.ClipTask, *, freeze: bool = True
) -> tuple[FitData, Callable[[], nn.Module]]:
    inputs = logmel_units(encoder, task, fade_seconds=0.05)[:16]
    data = FitData(inputs, torch.arange(16) % 4, torch.arange(13), torch.arange(8, 16), 4, 0)
    return data, lambda: FinetunedClassifier(encoder, 4, freeze_patch_embed=freeze)


@pytest.mark.parametrize("pieces", [2, 4, 13])
def test_accumulation_changes_nothing(encoder: m2dx.AudioEncoder, task: m2dx.ClipTask, pieces: int) -> None:
    data, make = whole_network(encoder, task)
    settings = replace(SETTINGS, batch_size=10, mel_mask=20, time_mask=20)  # batches of 10 and 3
    (one, results), (several, others) = (
        trained(data, replace(settings, accumulate=number), make) for number in (1, pieces)
    )
    # Not weights: gradients of the attention's key biases are zero but for rounding, which Adam magnifies.
    with torch.no_grad():
        torch.testing.assert_close(one(data.inputs.float()), several(data.inputs.float()), atol=1e-4, rtol=0)
    for result, other in zip(results, others, strict=True):
        assert torch.equal(result.confusion, other.confusion)


def test_one_step_follows_the_weighted_loss_of_the_whole_batch() -> None:
    y = torch.tensor([0] * 5 + [1] * 2 + [2] + [0, 1, 2, 3])
    data = small_data(y=y)
    start, _ = trained(data, replace(SETTINGS, epochs=1, learning_rate=1e-30))
    model, _ = trained(data, replace(SETTINGS, epochs=1, batch_size=8, accumulate=3, learning_rate=0.01))
    expected = copy.deepcopy(start)
    loss = nn.CrossEntropyLoss(weight=data.class_weights())(expected(data.inputs[:8]), y[:8])
    loss.backward()
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01)
    optimizer.step()
    for wanted, found in zip(expected.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_without_class_weights_every_cycle_counts_alike() -> None:
    y = torch.tensor([0] * 5 + [1] * 2 + [2] + [0, 1, 2, 3])
    data = small_data(y=y)
    plain = replace(SETTINGS, epochs=1, batch_size=8, accumulate=3, learning_rate=0.01, class_weights=False)
    start, _ = trained(data, replace(plain, learning_rate=1e-30))
    model, _ = trained(data, plain)
    expected = copy.deepcopy(start)
    nn.CrossEntropyLoss()(expected(data.inputs[:8]), y[:8]).backward()
    torch.optim.Adam(expected.parameters(), lr=0.01).step()
    for wanted, found in zip(expected.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


class Recorder(nn.Module):
    """Keeps the first value of each input that it is trained on, and what dropout leaves of ten ones."""

    def __init__(self, draws: int) -> None:
        super().__init__()
        torch.rand(draws)  # as of a layer of another size
        self.weight = nn.Parameter(torch.zeros(4))
        self.seen: list[float] = []
        self.dropped: list[Tensor] = []

    def forward(self, logmel: Tensor) -> Tensor:
        if self.training:
            self.seen += logmel[:, 0, 0, 0].tolist()
            self.dropped.append(nn.functional.dropout(torch.ones(10)))
        return self.weight.expand(len(logmel), 4)


def test_masks_and_the_layer_leave_order_and_dropout_as_they_are() -> None:
    levels = (
        torch.arange(12.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    )  # masks do not change what is silent all over
    runs: list[Recorder] = []
    for draws, masks in ((0, 0), (7, 0), (0, 4)):
        settings = replace(SETTINGS, batch_size=3, mel_mask=masks, time_mask=masks)
        model, _ = trained(small_data(inputs=levels), settings, partial(Recorder, draws))
        assert isinstance(model, Recorder)
        runs.append(model)
    first, *others = runs
    assert first.seen != sorted(first.seen)
    for other in others:
        assert other.seen == first.seen
        assert torch.equal(torch.stack(other.dropped), torch.stack(first.dropped))


def test_the_seed_alone_decides(encoder: m2dx.AudioEncoder, task: m2dx.ClipTask) -> None:
    data, make = whole_network(encoder, task)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, _ = trained(data, SETTINGS, make, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    again, _ = trained(data, SETTINGS, make, seed=3)
    other, _ = trained(data, SETTINGS, make, seed=4)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not torch.equal(first.linear.weight, other.linear.weight)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("freeze", [True, False])
def test_the_whole_copy_is_trained_but_for_the_patch_embedding(
    encoder: m2dx.AudioEncoder, task: m2dx.ClipTask, freeze: bool
) -> None:
    before = copy.deepcopy(encoder.state_dict())
    data, make = whole_network(encoder, task, freeze=freeze)
    model, _ = trained(data, SETTINGS, make)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(before[name], tensor), name
    assert not encoder.training
    for name, parameter in model.encoder.named_parameters():  # type: ignore[union-attr]
        kept = freeze and "patch_embed" in name
        assert torch.equal(before[name], parameter) == kept, name


def test_dropout_is_on_in_training_and_off_in_tests() -> None:
    modes: list[tuple[int, bool]] = []

    class Watched(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            modes.append((len(features), self.training))
            return super().forward(features)

    trained(small_data(), replace(SETTINGS, batch_size=8), lambda: Watched(4, 4))
    assert modes == [(8, True), (4, False)] * 2


def test_a_classifier_learns() -> None:
    _, results = trained(small_data(), replace(SETTINGS, epochs=60, learning_rate=0.05))
    assert results[0].scores.score < results[-1].scores.score == 1.0


def test_features_are_standardised_over_the_training_rows_and_constant_ones_are_kept_out() -> None:
    features = torch.tensor([[1.0, 5.0, 1e4], [3.0, 5.0, 3e4]])
    model = LinearClassifier(features, 2)
    with torch.no_grad():
        model.linear.weight.copy_(torch.eye(3)[:2])
        model.linear.bias.zero_()
    torch.testing.assert_close(model(features), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))


def test_a_cosine_ends_near_zero_and_a_constant_rate_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules: dict[Schedule, list[float]] = {
        "constant": [1.0] * 4,
        "cosine": [1.0, 0.853553, 0.5, 0.146447],
    }
    for schedule, expected in schedules.items():
        rates: list[float] = []
        step = torch.optim.Adam.step
        monkeypatch.setattr(
            torch.optim.Adam,
            "step",
            lambda self, *given, rates=rates: rates.append(self.param_groups[0]["lr"]),
        )
        trained(small_data(), replace(SETTINGS, epochs=4, batch_size=8, learning_rate=1.0, schedule=schedule))
        monkeypatch.setattr(torch.optim.Adam, "step", step)
        assert rates == pytest.approx(expected, abs=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_name() -> None:
    data = small_data()
    data.inputs[3] = math.nan
    with pytest.raises(m2dx.TrainingError, match="trial: the loss must be finite, but is nan in epoch 1"):
        trained(data, SETTINGS, lambda: nn.Linear(4, 4))


def test_bf16_trains_as_fp32_does_but_for_rounding(encoder: m2dx.AudioEncoder, task: m2dx.ClipTask) -> None:
    data, make = whole_network(encoder, task)
    (exact, _), (rounded, _) = (
        trained(data, replace(SETTINGS, precision=precision), make) for precision in ("fp32", "bf16")
    )
    pairs = list(zip(exact.state_dict().values(), rounded.state_dict().values(), strict=True))
    assert any(not torch.equal(one, other) for one, other in pairs)
    assert all((one - other).abs().max() < 0.02 for one, other in pairs)


def test_masks_hide_two_stripes_of_each_kind_at_most() -> None:
    logmel = torch.rand(200, 1, 80, 60, generator=torch.Generator().manual_seed(1)) + 1
    before = logmel.clone()
    generator = torch.Generator().manual_seed(0)
    masked = mask_stripes(logmel, mels=20, frames=10, generator=generator)
    hidden = (masked != logmel)[:, 0] | (masked == logmel.amin((1, 2, 3), keepdim=True))[:, 0]
    rows, columns = hidden.all(2).sum(1), hidden.all(1).sum(1)
    assert 0 <= rows.min() < 8 and 30 < rows.max() <= 40
    assert 0 <= columns.min() < 4 and 14 < columns.max() <= 20
    assert torch.equal(logmel, before)  # a copy
    again = mask_stripes(logmel, mels=20, frames=10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(masked, again)
    only_time = mask_stripes(logmel, mels=0, frames=10, generator=generator) != logmel
    assert not only_time.all(3).any() and (only_time.sum(2) >= 79).any()


def test_masks_hide_by_the_lowest_value_of_each_logmel() -> None:
    logmel = torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(1)) + torch.arange(20.0).view(
        -1, 1, 1, 1
    )
    masked = mask_stripes(logmel, mels=8, frames=8, generator=torch.Generator().manual_seed(0))
    lowest = logmel.amin((1, 2, 3), keepdim=True).expand_as(logmel)
    changed = masked != logmel
    assert changed.flatten(1).any(1).sum() > 15
    assert torch.equal(masked[changed], lowest[changed])
