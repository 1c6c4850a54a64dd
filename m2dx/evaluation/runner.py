"""Scores encoders and baselines on all tasks with all protocols."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from m2dx.contract.components import ClipEncoder, EvaluationTask, Evaluator, Prediction, Score
from m2dx.contract.errors import M2dxError, PluginError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.contract.progress import Progress
from m2dx.contract.wording import problem_of
from m2dx.evaluation.bootstrap import with_metrics
from m2dx.evaluation.metrics import half_width_95
from m2dx.training.memory import evaluation_advice, memory_advice


def evaluate(
    encoders: Mapping[str, Callable[[int], ClipEncoder]],
    tasks: Sequence[EvaluationTask],
    evaluators: Mapping[str, Evaluator],
    *,
    seeds: tuple[int, ...],
    protocols: Mapping[str, Collection[str]] | None = None,
    progress: Progress | None = None,
    host: PluginHost | None = None,
    failed: list[M2dxError] | None = None,
) -> list[Score]:
    """Scores of each encoder on each task with each protocol, named as in the mappings.

    `protocols` names, by task, the evaluators that score it; a task that it does not name has all.

    Each callable gives the encoder for a seed. One that gives the same object each time is a fixed encoder: the seeds
    are the classifier's. One that gives a new object each time (random weights) is scored once per seed, with a
    classifier of that seed, and the values are pooled: one per seed. Raises RecipeError where there is nothing to
    score, or a seed comes twice.

    An evaluator that fails, or whose scores break its contract, stops no other. The first error of each task and
    protocol goes to the list `failed`; without one it is raised. `host` knows the plugins that errors name.
    """
    check_request(tasks, evaluators, seeds)
    chosen = {task.name: (protocols or {}).get(task.name, evaluators) for task in tasks}
    total = len(encoders) * sum(map(len, chosen.values())) * len(seeds)
    done = 0
    results: list[Score] = []
    failures: dict[tuple[str, str, str], M2dxError] = {}  # by task, protocol and encoder
    for name, make in encoders.items():
        pooled: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
        for encoder, its_seeds in _by_encoder(make, seeds):
            for task in tasks:
                for protocol in chosen[task.name]:
                    if progress is not None:
                        progress(done, total, f"{name}: {task.name}, {protocol}")
                    done += len(its_seeds)
                    try:
                        scores = _scored(evaluators[protocol], protocol, host, encoder, name, task, its_seeds)
                    except M2dxError as error:
                        failures.setdefault((task.name, protocol, name), error)
                        continue
                    for score in scores:
                        pooled[task.name, protocol, score.metric].append(score)
            del encoder  # before the next one is made: a large network may not fit beside two others
        results += [_pool(scores) for key, scores in pooled.items() if (*key[:2], name) not in failures]
    if progress is not None:
        progress(total, total, "done")
    there = {(score.task, score.protocol) for score in results} | {key[:2] for key in failures}
    for task in tasks:
        for protocol in {*chosen[task.name]} - {own for name, own in there if name == task.name}:
            label = _label(evaluators[protocol], protocol, host, task)
            failures[task.name, protocol, ""] = PluginError(f"{label}: it gives no score of any encoder")
    errors = list({key[:2]: error for key, error in reversed(failures.items())}.values())
    if failed is None and errors:
        raise errors[0]
    if failed is not None:
        failed += errors
    return results


def _scored(
    evaluator: Evaluator,
    protocol: str,
    host: PluginHost | None,
    encoder: ClipEncoder,
    name: str,
    task: EvaluationTask,
    seeds: tuple[int, ...],
) -> list[Score]:
    """The scores of one encoder on one task; PluginError, naming the evaluator, where that breaks its contract."""
    label = _label(evaluator, protocol, host, task)
    advice = partial(evaluation_advice, protocol, evaluator)
    with (
        PluginError.blaming(f"{label}: evaluate of {name} failed"),
        memory_advice(f"evaluation ({protocol} on {task.name})", advice),
    ):
        scores = evaluator.evaluate(encoder, task, seeds=seeds)
        for problem in score_problems(scores, task):
            raise PluginError(f"{label}: of {name}, {problem}")
        named = [replace(score, protocol=protocol, encoder=name) for score in scores]
        return [with_metrics(score, task.label_names) for score in named]


def _label(evaluator: Evaluator, protocol: str, host: PluginHost | None, task: EvaluationTask) -> str:
    origin = "" if host is None else f" ({host.origin('evaluator', evaluator.name)})"
    return f"evaluator {protocol}{origin} on {task.name}"


def score_problems(scores: Any, task: EvaluationTask) -> Iterator[str]:
    """What is wrong with that which an evaluator gave, a line each; an evaluator may have no score of an encoder."""
    if not isinstance(scores, list):
        yield f"evaluate must give a list of m2dx.Score objects, but gave {scores!r}"
        return
    clips = set(task.clips)
    for score in scores:
        if not isinstance(score, Score):
            yield f"evaluate must give a list of m2dx.Score objects, but gave one with {score!r}"
            return
        mean, values, half = score.mean, score.values, score.ci95
        numbers = isinstance(values, tuple) and all(
            isinstance(value, float | int) for value in (mean, *values)
        )
        if not (numbers and values and all(map(math.isfinite, (mean, *values)))):
            yield f"mean and values must be finite, with one value or more, but are {mean}, {values}"
            return
        share = score.metric not in ("accuracy", "mAP") or 0.0 <= mean <= 1.0
        rules = {
            f"a score's task must be {task.name!r}, but is {score.task!r}": score.task == task.name,
            f"the mean ({mean}) must lie among the values {values}": min(values) - 1e-6
            <= mean
            <= max(values) + 1e-6,
            f"{score.metric} must be in [0, 1], but is {mean}; not in %": share,
            f"ci95 must be None or 0 or more, but is {half}": half is None or 0 <= half < math.inf,
            "its predictions must be of the task's clips and classes, with probabilities in [0, 1]": all(
                isinstance(item, Prediction)
                and item.clip in clips
                and item.label in task.label_names
                and 0 <= item.probability <= 1
                and (item.probabilities is None or len(item.probabilities) == len(task.label_names))
                for item in score.predictions
            ),
        }
        yield from (text for text, holds in rules.items() if not holds)
        try:
            json.dumps(asdict(replace(score, predictions=())), allow_nan=False)
        except (TypeError, ValueError) as error:
            yield f"its details must be plain data: {problem_of(error)}"


def check_request(
    tasks: Collection[object], evaluators: Mapping[str, Evaluator], seeds: tuple[int, ...]
) -> None:
    """RecipeError where `evaluate` would have nothing to score, or a seed comes twice."""
    for what, given in (("tasks", tasks), ("evaluators", evaluators), ("seeds", seeds)):
        if not given:
            raise RecipeError(f"evaluation needs {what}, but there are none; add one under evaluation.{what}")
    repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if repeated:
        raise RecipeError(
            f"evaluation.seeds must differ, since a repeated seed gives the same score again, but repeats "
            f"{', '.join(map(str, repeated))}; list each once"
        )


def _by_encoder(
    make: Callable[[int], ClipEncoder], seeds: tuple[int, ...]
) -> Iterator[tuple[ClipEncoder, tuple[int, ...]]]:
    """Each encoder with its seeds; made one at a time, as random networks may be large."""
    encoder, its_seeds = make(seeds[0]), [seeds[0]]
    for seed in seeds[1:]:
        following = make(seed)
        if following is not encoder:
            yield encoder, tuple(its_seeds)
            encoder, its_seeds = following, []
        its_seeds.append(seed)
    yield encoder, tuple(its_seeds)


def _pool(scores: list[Score]) -> Score:
    if len(scores) == 1:
        return scores[0]
    values = tuple(score.mean for score in scores)
    details = {**scores[0].details, "classifiers": len(values)}
    mean, ci95 = float(np.mean(values)), half_width_95(values)
    return replace(scores[0], mean=mean, ci95=ci95, values=values, details=details)
