"""The evaluator `icbhi`: what it trains, reports and refuses."""

import copy
import logging
from dataclasses import replace
from pathlib import Path

import m2dx_respiratory.evaluator
import numpy as np
import pytest
import torch
from m2dx_respiratory import IcbhiEvaluator
from m2dx_respiratory.confusion import RespiratoryScores
from m2dx_respiratory.finetuning import EpochResult, FitData, Precision
from torch import Tensor

import m2dx
from m2dx.testing import check_evaluator


class LevelEncoder:
    """An encoder that has clip features only, and no weights."""

    sample_rate, embed_dim = 16_000, 3

    def clip(self, wav: Tensor) -> Tensor:
        level = wav.square().mean(1).add(1e-6).log()
        return torch.stack([level, wav.abs().amax(1), torch.ones_like(level)], 1)


def test_it_keeps_the_contract() -> None:
    check_evaluator(IcbhiEvaluator, epochs=1, batch_size=8, normal="LOW")
    check_evaluator(
        IcbhiEvaluator, epochs=2, batch_size=8, accumulate=2, normal="high", mel_mask=8, precision="bf16"
    )


def test_scores_of_the_last_and_the_best_epoch(
    encoder: m2dx.AudioEncoder, task: m2dx.ClipTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripted runs: three epochs, two seeds; rows of the confusions are normal and one other class."""
    scripts = {
        0: [[[2, 2], [2, 2]], [[4, 0], [0, 4]], [[3, 1], [2, 2]]],
        1: [[[4, 0], [2, 2]], [[0, 4], [4, 0]], [[2, 2], [4, 0]]],
    }
    seen: list[FitData] = []

    def scripted(
        build: object, data: FitData, settings: object, *, seed: int, **given: object
    ) -> list[EpochResult]:
        seen.append(data)
        matrices = map(torch.tensor, scripts[seed])
        return [EpochResult(matrix, RespiratoryScores.of(matrix, normal=0)) for matrix in matrices]

    monkeypatch.setattr(m2dx_respiratory.evaluator, "fit", scripted)
    scores = IcbhiEvaluator().evaluate(encoder, task, seeds=(0, 1))
    values = {score.metric: score.values for score in scores}
    best = "(best epoch on test, optimistic)"
    assert values == {
        "specificity": (0.75, 0.5),
        "sensitivity": (0.5, 0.0),
        "score": (0.625, 0.25),
        f"specificity {best}": (1.0, 1.0),
        f"sensitivity {best}": (1.0, 0.5),
        f"score {best}": (1.0, 0.75),
    }
    score, optimistic = (next(s for s in scores if s.metric == name) for name in ("score", f"score {best}"))
    assert score.mean == pytest.approx(0.4375) and score.ci95 == m2dx.half_width_95(score.values)
    assert score.details["confusion"] == [[5, 3], [6, 2]]
    assert optimistic.details["best_epochs"] == [[2, 1]]
    fold = task.folds[0]
    assert len(fold.valid) and sorted(seen[0].train.tolist()) == sorted([*fold.train, *fold.valid])
    assert seen[0].test.tolist() == fold.test.tolist()


def test_the_whole_network_or_the_linear_layer_is_trained(
    encoder: m2dx.AudioEncoder, task: m2dx.ClipTask, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = IcbhiEvaluator(epochs=2, batch_size=16)
    with caplog.at_level(logging.INFO):
        whole = evaluator.evaluate(encoder, task, seeds=(0,))
    assert {score.details["trained"] for score in whole} == {"whole network"}
    best = "(best epoch on test, optimistic)"
    names = ("specificity", "sensitivity", "score")
    assert [score.metric for score in whole] == [*names, *(f"{name} {best}" for name in names)]
    assert all(score.ci95 is None and len(score.values) == 1 for score in whole)
    told = [message for message in caplog.messages if message.startswith("icbhi, lungs, test, seed 0")]
    assert len(told) == 2 and "epoch 2/2: loss" in told[1] and "Score" in told[1]
    alone = evaluator.evaluate(LevelEncoder(), task, seeds=(0,))
    assert {score.details["trained"] for score in alone} == {"linear layer"}
    assert [score.metric for score in alone] == [f"{name} (linear layer only)" for name in names]
    assert np.asarray(alone[0].details["confusion"]).sum() == len(task.folds[0].test)


def test_a_network_learns_what_is_heard(encoder: m2dx.AudioEncoder, task: m2dx.ClipTask) -> None:
    evaluator = IcbhiEvaluator(epochs=15, batch_size=16, learning_rate=2e-3)
    scores = {score.metric: score.mean for score in evaluator.evaluate(encoder, task, seeds=(0,))}
    assert scores["score"] > 0.7  # 0.5 for one class only, or by chance


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_runs_on_the_encoders_device(
    encoder: m2dx.AudioEncoder, task: m2dx.ClipTask, precision: Precision
) -> None:
    evaluator = IcbhiEvaluator(
        epochs=2, batch_size=16, accumulate=2, mel_mask=8, learning_rate=1e-3, precision=precision
    )
    scores = evaluator.evaluate(copy.deepcopy(encoder).cuda(), task, seeds=(0, 1))
    assert all(0 <= value <= 1 for score in scores for value in score.values)


def test_folds_are_averaged_by_seed(task: m2dx.ClipTask) -> None:
    clips = tuple(replace(clip, split=str(number % 3)) for number, clip in enumerate(task.clips))
    fold = task.folds[0]
    folds = tuple(replace(fold, name=str(n), test=fold.test[n::3]) for n in range(3))
    folded = replace(task, clips=clips, folds=folds)
    evaluator = IcbhiEvaluator(epochs=1)
    assert [len(s.values) for s in evaluator.evaluate(LevelEncoder(), folded, seeds=(0, 1))] == [2] * 3
    assert [len(s.values) for s in evaluator.evaluate(LevelEncoder(), folded, seeds=(0,))] == [3] * 3


@pytest.mark.parametrize(("seconds", "warned"), [(0.6, True), (8.0, False)])
def test_another_length_than_the_published_one_is_warned_of(
    task: m2dx.ClipTask, caplog: pytest.LogCaptureFixture, seconds: float, warned: bool
) -> None:
    changed = replace(task, unit_seconds=seconds, warnings=("of the task",))
    scores = IcbhiEvaluator(epochs=1).evaluate(LevelEncoder(), changed, seeds=(0,))
    text = "units have 0.6 s, but those of the paper 8 s: "
    assert any(f"'lungs': {text}" in message for message in caplog.messages) == warned
    for score in scores:
        first, *others = score.details["warnings"]  # type: ignore[misc]
        assert first == "of the task"
        assert [other.startswith(text) for other in others] == [True] * warned


def test_class_weights_and_masks_are_among_the_settings() -> None:
    evaluator = IcbhiEvaluator(class_weights=False, mel_mask=1, time_mask=2, accumulate=3)
    settings = evaluator.settings
    assert not settings.class_weights and IcbhiEvaluator().settings.class_weights
    assert (settings.mel_mask, settings.time_mask, settings.accumulate) == (1, 2, 3)


def test_wrong_tasks_are_refused_before_training() -> None:
    names = ("Normal", "Wheeze")
    clips = tuple(m2dx.Clip(Path(f"{name}.wav"), labels=(name,)) for name in names)
    task = m2dx.ClipTask("lungs", clips, names, (), None, "pad")
    IcbhiEvaluator().check(task)
    with pytest.raises(m2dx.RecipeError, match=r"`normal` .* 'lungs' \(Normal, Wheeze\), but is 'healthy'"):
        IcbhiEvaluator(normal="healthy").check(task)
    several = replace(task, clips=(*clips, m2dx.Clip(Path("c.wav"), labels=names)))
    with pytest.raises(m2dx.RecipeError, match="'lungs' must have one label per clip, but some have several"):
        IcbhiEvaluator().check(several)


def test_tasks_that_have_no_score_are_refused(task: m2dx.ClipTask) -> None:
    def refused(text: str, task: m2dx.ClipTask, **options: str) -> None:
        with pytest.raises(m2dx.RecipeError, match=text):
            IcbhiEvaluator(**options).evaluate(LevelEncoder(), task, seeds=(0,))  # type: ignore[arg-type]

    refused(
        r"`normal` must be a class of .*'lungs' \(normal, crackle, wheeze, both\), but is 'ill'",
        task,
        normal="ill",
    )
    both = (replace(task.clips[0], labels=("normal", "wheeze")), *task.clips[1:])
    refused("must have one label per clip", replace(task, clips=both))
    ill = tuple(replace(clip, labels=("wheeze",)) for clip in task.clips)
    refused(
        r"'test' of .*'lungs' must have clips of 'normal' and of other classes, but has 0 and 16",
        replace(task, clips=ill),
    )
