"""The benchmark against a plain step: both compute the same, and every measure can be left out."""

import copy
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from m2dx.encoder.published import MODEL_NAMES, rename
from m2dx.model.m2d import M2D
from m2dx.model.masking import Mask
from m2dx.model.precision import autocast
from m2dx.training.optim import clip_gradients, fused_adamw

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALLEST = (
    "--size tiny --crop-seconds 0.32 --batch 2 --warmup 0 --repeats 2 --threads 1 --measures all model.depth=1"
).split()
SMALLEST.append("model.predictor={embed_dim: 64, depth: 1, num_heads: 2}")
MODULES = (
    "against_baseline", "baseline_step", "baseline_tables", "left_out", "step", "step_measures", "step_tables",
)  # fmt: skip


@pytest.fixture(scope="module")
def against() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import against_baseline

        yield against_baseline
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def measured(against: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of one small measurement."""
    path, threads = tmp_path_factory.mktemp("baseline") / "out.json", torch.get_num_threads()
    try:
        assert against.main([*SMALLEST, "--json", str(path)]) == 0
    finally:
        torch.set_num_threads(threads)
    return SimpleNamespace(report=json.loads(path.read_text()), path=path)


def published(parity: Any) -> M2D:
    model = M2D(parity.grid, parity.size, parity.predictor)
    model.load_state_dict(rename(parity.weights("m2d_weights"), MODEL_NAMES))
    return model


def test_the_baseline_has_the_published_loss(against: ModuleType, parity: Any) -> None:
    twin = against.plain_twin(published(parity), parity.meta["num_visible"])
    loss = twin(parity.tensors["x"], parity.tensors["ids_shuffle"])
    assert loss.item() == pytest.approx(parity.tensors["m2d_loss"].item(), abs=1e-6)


def test_steps_of_the_baseline_move_the_weights_as_m2dx_does(against: ModuleType, parity: Any) -> None:
    model = published(parity)
    plain = against.PlainStep(
        against.plain_twin(model, parity.meta["num_visible"]), learning_rate=1e-3, ema_decay=0.9
    )
    optimizer = fused_adamw(
        model.named_parameters(), weight_decay=0.05, learning_rate=1e-3, betas=(0.9, 0.95)
    )
    x, ids = parity.tensors["x"], parity.tensors["ids_shuffle"]
    for _ in range(3):
        with autocast("fp32", torch.device("cpu")):
            loss = model(x, Mask(ids, parity.meta["num_visible"])).loss
        loss.backward()
        clip_gradients([p for p in model.parameters() if p.requires_grad], 3.0)
        optimizer.step()
        optimizer.zero_grad()
        model.update_target(0.9)
        assert plain(x, ids) == pytest.approx(loss.item(), abs=1e-5)
    for name, weights in plain.model.state_dict().items():
        expected = model.state_dict()[name]
        if name.endswith(
            "qkv.bias"
        ):  # that of keys has no gradient but rounding, which Adam makes whole steps of
            weights, expected = (
                torch.cat([part.chunk(3)[0], part.chunk(3)[2]]) for part in (weights, expected)
            )
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-4, msg=name)


def test_ratios_are_of_timings_of_one_round(measured: Any) -> None:
    results = {(r["precision"], r["without"]): r for r in measured.report["results"]}
    assert len(results) == 3 + 2 * 6
    speeds = {key: result["clips_per_second"]["samples"] for key, result in results.items()}
    for (precision, without), result in results.items():
        key = (precision, without)
        expected = [a / b for a, b in zip(speeds[key], speeds["baseline", None], strict=True)]
        assert result["against_baseline"]["samples"] == pytest.approx(expected)
        if without is not None:
            expected = [a / b for a, b in zip(speeds[key], speeds[precision, None], strict=True)]
            assert result["against_all_measures"]["samples"] == pytest.approx(expected)


def test_both_start_from_the_same_loss(measured: Any) -> None:
    losses = measured.report["losses"]
    assert losses["m2dx"] == pytest.approx(losses["baseline"], abs=1e-5)


def test_the_tables_say_where_and_what(against: ModuleType, measured: Any) -> None:
    text = against.markdown(measured.report)
    for said in ("| baseline |", "| m2dx bf16 |", "| float32_attention |", "by the wall clock", "1 threads"):
        assert said in text
    gain = next(r for r in measured.report["results"] if r["without"] == "fused_adamw")[
        "against_all_measures"
    ]
    assert f"| fused_adamw | {1 / gain['median']:.2f} (" in text


def test_leaving_a_measure_out_changes_no_result(against: ModuleType, tmp_path: Path) -> None:
    """Three steps give the same weights, to rounding, with and without each; and the measure is back after it."""
    options, host = against.parse(SMALLEST), against.PluginHost.discover()
    options.overrides += ["train.warmup_epochs=0", "train.base_lr=0.05", "train.clip_norm=0.01"]
    contest = against.Contest(against.start(against.recipe_of(options, host, str(tmp_path)), host), batches=1)
    model, optimizer = contest.trainer.model, contest.trainer.optimizer
    start = copy.deepcopy(model.state_dict())

    def weights(measure: str | None) -> torch.Tensor:
        model.load_state_dict(start)
        optimizer.state.clear()
        contest.trainer.step = 0
        contest.clips_per_second(against.Contestant("fp32", measure), iter(contest.batches * 3), 3)
        assert all(group["fused"] for group in optimizer.param_groups)
        assert isinstance(model.masked_model.predictor.pred, torch.nn.Linear)
        return torch.cat(
            [p.detach().flatten() for name, p in model.named_parameters() if "qkv.bias" not in name]
        )

    expected = weights(None)
    assert torch.equal(weights(None), expected)
    before = start["masked_model.online.trunk.blocks.0.mlp.fc1.weight"]
    assert (
        model.state_dict()["masked_model.online.trunk.blocks.0.mlp.fc1.weight"] - before
    ).abs().max() > 1e-4
    for name in against.MEASURES:
        torch.testing.assert_close(weights(name), expected, rtol=0, atol=2e-5, msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measures", "fused_sgd"], "--measures must be of fused_adamw"),
        (["--repeats", "0"], "--repeats must be at least 1"),
    ],
)
def test_wrong_options_end_it_before_measuring(
    against: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        against.main(arguments)
    assert message in capsys.readouterr().err


def test_a_setting_that_cannot_be_is_refused(against: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert against.main(["--crop-seconds", "0.3"]) == 1
    assert "audio.crop_seconds" in capsys.readouterr().err
