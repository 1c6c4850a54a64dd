"""Metrics, RankMe, and alarms."""

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from m2dx.model.multitask import StepLosses
from m2dx.recipe.schema import TrainSection
from m2dx.training.distributed import Processes
from m2dx.training.monitor import (
    CollapseAlarm,
    Look,
    LossWatch,
    MetricsWriter,
    StepRecord,
    describe,
    mean_losses,
    not_finite,
    rankme,
)


def record(step: int, loss: float, grad_norm: float = 1.0) -> StepRecord:
    losses = {"loss": torch.tensor(loss), "loss_m2d": torch.tensor(loss / 2)}
    return StepRecord(step, losses, torch.tensor(grad_norm), (torch.tensor([step]),), torch.tensor(0.0))


def with_singular_values(values: list[float], rows: int = 64) -> Tensor:
    left = torch.linalg.qr(torch.randn(rows, len(values), dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64)).Q
    return (left * torch.tensor(values, dtype=torch.float64)) @ right


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0] * 16, 16.0),  # as many equal directions, as many ranks
        ([5.0] + [0.0] * 15, 1.0),
        ([1.0, 1.0, 0.0, 0.0], 2.0),
        # shares 1/2, 1/4, 1/4: exp(1/2 log 2 + 1/2 log 4)
        ([2.0, 1.0, 1.0], math.exp(0.5 * math.log(2) + 0.5 * math.log(4))),
    ],
)
def test_rankme(values: list[float], expected: float) -> None:
    features = with_singular_values(values)
    assert rankme(features) == pytest.approx(expected, rel=1e-3)
    assert rankme(features * 1000) == pytest.approx(expected, rel=1e-3)


def test_rankme_takes_evenly_spaced_rows_of_many() -> None:
    one_direction = torch.zeros(5000, 8)
    one_direction[:, 0] = 1.0
    one_direction[1::3] = torch.randn(
        len(one_direction[1::3]), 8
    )  # every third row; 5000 rows: every third taken
    assert rankme(one_direction) == pytest.approx(1.0, rel=1e-3)
    assert rankme(one_direction[:2048]) > 2


def test_rankme_of_zeros_and_of_half_precision() -> None:
    assert math.isfinite(rankme(torch.zeros(10, 4)))
    assert rankme(torch.eye(8).bfloat16()) == pytest.approx(8.0, rel=1e-2)


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ({"rankme": 50.0}, ""),
        ({"rankme": 50.0, "target_constant": 0.75}, ""),
        ({"rankme": 1.2}, "collapsing: RankMe is 1.20 at step 200"),
        ({"rankme": 50.0, "target_constant": 0.85}, "85% of its energy is constant at step 200"),
    ],
)
def test_the_collapse_alarm(caplog: pytest.LogCaptureFixture, measured: dict[str, float], told: str) -> None:
    alarm = CollapseAlarm()
    with caplog.at_level(logging.WARNING):
        alarm.check(200, measured)
    assert alarm.count == bool(told) == bool(caplog.text) and told in caplog.text
    assert not told or "Try " in caplog.text


def test_means_since_the_last_line() -> None:
    watch = LossWatch(check_grad_norm=True)
    for step, loss in enumerate([1.0, 2.0, 6.0], start=1):
        watch.push(record(step, loss, grad_norm=loss))
    assert watch.drain_means() == {"loss": 3.0, "loss_m2d": 1.5, "grad_norm": 3.0}
    watch.push(record(4, 8.0))
    assert watch.drain_means()["loss"] == 8.0


def test_means_go_on_after_a_restore() -> None:
    watch, other = LossWatch(check_grad_norm=True), LossWatch(check_grad_norm=True)
    for step, loss in ((1, 1.0), (2, 2.0)):
        watch.push(record(step, loss))
    other.restore(watch.pending(), step=2, device=torch.device("cpu"))
    assert other.first_not_finite() is None
    for each in (watch, other):
        each.push(record(3, 6.0))
    assert other.drain_means() == watch.drain_means()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_step_that_is_not_finite(bad: float) -> None:
    watch = LossWatch(check_grad_norm=True)
    watch.push(record(1, 1.0))
    assert watch.first_not_finite() is None
    for step, loss in ((2, 1.0), (3, bad), (4, bad)):
        watch.push(record(step, loss))
    found = watch.first_not_finite()
    assert found is not None and found.step == 3


def test_a_gradient_that_is_not_finite_counts_but_not_with_a_scaler() -> None:
    for check, expected in ((True, 1), (False, None)):
        watch = LossWatch(check_grad_norm=check)
        watch.push(record(1, 1.0, grad_norm=float("inf")))
        found = watch.first_not_finite()
        assert (found.step if found else None) == expected


def test_the_error_names_step_values_clips_and_remedies() -> None:
    text = str(not_finite(record(7, float("nan")), ["a.wav", "b.wav"], TrainSection()))
    for part in ("step 7", "loss nan", "grad_norm 1", "  a.wav\n  b.wav", "base_lr"):
        assert part in text


@pytest.mark.parametrize(
    ("precision", "clip_norm", "advice"),
    [
        ("fp32", None, "warmup_epochs, a train.clip_norm;"),
        ("bf16", 3.0, "a train.clip_norm below 3, train.precision fp32;"),
        ("fp16", 3.0, "a train.clip_norm below 3, train.precision bf16 or fp32;"),
    ],
)
def test_the_remedies_are_not_what_is_so_already(
    precision: str, clip_norm: float | None, advice: str
) -> None:
    train = TrainSection(precision=precision, clip_norm=clip_norm)
    assert advice in str(not_finite(record(7, float("nan")), [], train))


def test_metrics_file(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write({"step": step, "loss": 1.0 / step, "time": 5.0})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + "\n" + '{"step": 4, "lo')
    writer = MetricsWriter(tmp_path, 2)
    assert writer.last == {"step": 2, "loss": 0.5, "time": 5.0}
    writer.write({"step": 3, "loss": 9.0})
    assert writer.last == {"step": 3, "loss": 9.0, "time": 5.0}
    writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 0.5), (3, 9.0)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_kill_while_lines_are_dropped_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(1, 6)))

    def killed(*paths: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", killed)
        MetricsWriter(tmp_path, 3)
    assert path.read_text().count("\n") == 5
    MetricsWriter(tmp_path, 3).close()
    assert path.read_text().count("\n") == 3
    assert not list(tmp_path.glob(".*.partial"))


def test_lines_that_are_damaged_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    damaged = b'\xff\xfe\n{"step": "x"}\n[]\n{"loss": 1}\n5\n'
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n' + damaged + b'{"step": 2, "loss": 1.0}\n')
    writer = MetricsWriter(tmp_path, 2)
    writer.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    assert writer.last == {"step": 2, "loss": 1.0}


def test_one_process_keeps_its_losses() -> None:
    alone = Processes(0, 1, torch.device("cpu"))
    for stop in (False, True):
        means, vote = mean_losses({"loss": torch.tensor(2.0)}, alone, stop=stop)
        assert means == {"loss": torch.tensor(2.0)} and vote.item() == float(stop)


@pytest.mark.parametrize(
    ("speed", "told"),
    [
        (1234.5, "1234 clips/s"),
        (12.3, "12 clips/s"),
        (3.21, "3.2 clips/s"),
        (0.5, "64.0 s/step"),
        (0.04, "800.0 s/step"),
    ],
)
def test_metrics_are_a_line_whose_speed_can_be_read(speed: float, told: str) -> None:
    metrics = {"loss": 1.5, "loss_m2d": 1.25, "lr": 1e-3, "clips_per_second": speed, "rankme": 12.0}
    text = describe(metrics, batch_size=32)
    assert text == f"loss 1.5000  m2d 1.2500  lr 1.00e-03  {told}  rankme 12.0"
    measured = {"target_constant": 0.126, "gradient_m2d": 0.0123, "gradient_labels": 0.5}
    more = describe(metrics | measured, batch_size=32)
    assert more == f"{text}  target 13% constant  gradients m2d 0.012, labels 0.5"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_look_at_passes_of_several_processes_is_one_at_their_batch(processes: int) -> None:
    """Gradients of four passes at rows of their own: the norm of their mean is that of a batch of all."""
    norms = [3.0, 0.0, 4.0, 12.0]
    accumulate = len(norms) // processes
    of_others = sum(norm**2 for norm in norms[accumulate:]) / accumulate
    both = SimpleNamespace(
        world_size=processes, mean=lambda own: (own + of_others) / 2 if processes > 1 else own
    )
    look = Look(accumulate, both)  # type: ignore[arg-type]
    for norm in norms[:accumulate]:
        measured = {"gradient_m2d": torch.tensor(norm)}
        look.add(StepLosses(torch.zeros(()), {}, torch.zeros(1, 1, 1), measured), rows=False)
    assert float(look.scalars()["gradient_m2d"]) == pytest.approx(13.0 / 4)
