"""The evaluator `finetune`: a copy of the whole network, trained on a labelled task (M2D-X, IV-B, table II)."""

import m2dx
from m2dx_finetune.evaluator import Finetune

__all__ = ["Finetune"]


@m2dx.hookimpl
def evaluators() -> list[type]:
    return [Finetune]
