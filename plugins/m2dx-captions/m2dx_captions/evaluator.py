"""Zero-shot classification: the class whose text is nearest to a clip."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveFloat

import m2dx
from m2dx.contract.wording import suggestion
from m2dx.evaluation.bootstrap import with_metrics
from m2dx.evaluation.features import device_of, targets_of
from m2dx.evaluation.metrics import predictions_of, score_of, summarise
from m2dx.model.precision import autocast
from m2dx_captions.scorer import CaptionScorer, caption_tasks
from m2dx_captions.sentences import SAME, Sentences, Source

logger = logging.getLogger(__name__)


class ZeroShot(m2dx.Evaluator):
    """Accuracy (or mAP) of the class whose text is nearest to a test clip; no label of the task is trained on.

    The encoder has to come with the mapper of a caption task. Without one, as the start or a published file, it gets no
    score, and a warning says so. Random weights get one: with the trained mapper, so by chance.

    Options:
        sentences: those of the task's offline encoder, as there; of a file, vectors by text
        prompt: what makes a text of a class, with {label} in the place of its name; `_` of the name become spaces
        texts: whole texts of some classes, by label
        temperature: that divides the cosines in the probabilities of the classes
        cache: folder for the vectors that a model gives; by default they are not kept
    """

    name = "zero_shot"

    def __init__(
        self,
        *,
        sentences: Source,
        prompt: str = "the sound of {label}",
        texts: Mapping[str, str] | None = None,
        temperature: PositiveFloat = 0.07,
        cache: Path | None = None,
    ) -> None:
        if "{label}" not in prompt:
            raise m2dx.RecipeError(f"`prompt` must have {{label}}, but is {prompt!r}")
        self.sentences = Sentences(sentences, cache=cache)
        self.prompt, self.texts, self.temperature = prompt, dict(texts or {}), temperature

    def check(self, task: m2dx.EvaluationTask) -> None:
        for label in self.texts:
            if label not in task.label_names:
                raise m2dx.RecipeError(
                    f"`texts` must be of classes of {task.name}, but has {label!r}; "
                    f"{suggestion(label, task.label_names)}"
                )
        texts = self._texts(task.label_names)
        vectors = self.sentences.vectors(texts)
        alike = (vectors @ vectors.mT > SAME).triu(1).nonzero().tolist()
        if alike:
            one, other = (f"{task.label_names[number]!r} ({texts[number]!r})" for number in alike[0])
            raise m2dx.RecipeError(
                f"the texts of classes of {task.name} must have different vectors, but those of {one} and {other} are "
                f"the same by {self.sentences.source}; `texts` gives a class another text"
            )

    def check_encoder(self, encoder: m2dx.ClipEncoder, task: m2dx.EvaluationTask) -> None:
        if not isinstance(encoder, m2dx.AudioEncoder):
            raise m2dx.RecipeError(
                f"zero_shot needs an encoder that was trained with captions, but {type(encoder).__name__} gives clip "
                "features alone; leave it out of evaluation.baselines"
            )
        if caption_tasks(encoder):
            CaptionScorer.of(encoder, self.sentences)

    def evaluate(
        self, encoder: m2dx.ClipEncoder, task: m2dx.EvaluationTask, *, seeds: tuple[int, ...]
    ) -> list[m2dx.Score]:
        """One score of all folds' test parts; the seeds are not used."""
        self.check_encoder(encoder, task)
        assert isinstance(encoder, m2dx.AudioEncoder)
        if not caption_tasks(encoder):
            logger.warning(
                "%s: no zero_shot score of an encoder that was not trained with captions", task.name
            )
            return []
        texts, device = self._texts(task.label_names), device_of(encoder)
        scorer = CaptionScorer.of(encoder, self.sentences)
        with torch.inference_mode(), autocast("fp32", device):
            batches = task.batches(encoder, 32)
            cosines = torch.cat([scorer.score(batch.to(device), texts).cpu() for batch in batches])
        spread = (1 + cosines) / 2 if task.multi_label else (cosines / self.temperature).softmax(1)
        y = targets_of(task)
        by_fold, predictions = [], []
        for fold in task.folds:
            by_fold.append([score_of(cosines[fold.test], y[fold.test])])
            predictions += predictions_of(task, fold, spread[fold.test])
        details = {"texts": texts, "prompt": self.prompt}
        score = summarise(task, by_fold, protocol=self.name, details=details, predictions=predictions)
        return [_of_order(with_metrics(score, task.label_names)) if task.multi_label else score]

    def _texts(self, label_names: tuple[str, ...]) -> list[str]:
        """Of the classes, in their order."""
        return [
            self.texts.get(label, self.prompt.replace("{label}", label.replace("_", " ")))
            for label in label_names
        ]


def _of_order(score: m2dx.Score) -> m2dx.Score:
    """The score with the metrics that follow from the order of the clips alone: no cosine says that a label holds."""
    metrics: Any = score.details["metrics"]
    kept = {name: entry for name, entry in metrics.items() if name in ("mAP", "auroc")}
    others = {name: of for name, of in score.details.items() if name != "per_class"}
    return replace(score, details={**others, "metrics": kept})
