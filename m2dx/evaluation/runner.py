"""Scores encoders and baselines on all tasks with all protocols."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np

from m2dx.contract.components import ClipEncoder, EvaluationTask, Evaluator, Score
from m2dx.contract.errors import PluginError, RecipeError
from m2dx.contract.progress import Progress
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
) -> list[Score]:
    """Scores of each encoder on each task with each protocol, named as in the mappings.

    `protocols` names, by task, the evaluators that score it; a task that it does not name has all.

    Each callable gives the encoder for a seed. One that gives the same object each time is a fixed encoder: the seeds
    are the classifier's. One that gives a new object each time (random weights) is scored once per seed, with a
    classifier of that seed, and the values are pooled: one per seed. Raises RecipeError where there is nothing to
    score, or a seed comes twice; PluginError for one that no file of scores could hold.
    """
    check_request(tasks, evaluators, seeds)
    chosen = {task.name: (protocols or {}).get(task.name, evaluators) for task in tasks}
    total = len(encoders) * sum(map(len, chosen.values())) * len(seeds)
    done = 0
    results: list[Score] = []
    for name, make in encoders.items():
        pooled: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
        for encoder, its_seeds in _by_encoder(make, seeds):
            for task in tasks:
                for protocol in chosen[task.name]:
                    if progress is not None:
                        progress(done, total, f"{name}: {task.name}, {protocol}")
                    advice = partial(evaluation_advice, protocol, evaluators[protocol])
                    with memory_advice(f"evaluation ({protocol} on {task.name})", advice):
                        scores = evaluators[protocol].evaluate(encoder, task, seeds=its_seeds)
                    for score in scores:
                        found = f"its {score.metric} of {name} on {task.name}, {score.mean:g},"
                        what = f"evaluator {protocol}: {found} must be finite, and its details plain data"
                        with PluginError.blaming(what):
                            json.dumps(asdict(replace(score, predictions=())), allow_nan=False)
                        own = replace(score, protocol=protocol, encoder=name)
                        pooled[task.name, protocol, score.metric].append(with_metrics(own, task.label_names))
                    done += len(its_seeds)
            del encoder  # before the next one is made: a large network may not fit beside two others
        results += [_pool(scores) for scores in pooled.values()]
    if progress is not None:
        progress(total, total, "done")
    return results


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
