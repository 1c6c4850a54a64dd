"""An m2dx plugin: captions as training signal, and zero-shot classification of clips by text, after M2D-CLAP."""

import m2dx
from m2dx_captions.encoder import Captions
from m2dx_captions.losses import Contrastive, Cosine
from m2dx_captions.scorer import CaptionScorer as CaptionScorer
from m2dx_captions.scorer import load as load


@m2dx.hookimpl
def offline_encoders() -> list[type]:
    return [Captions]


@m2dx.hookimpl
def losses() -> list[type]:
    return [Contrastive, Cosine]


@m2dx.hookimpl
def evaluators() -> list[type]:
    from m2dx_captions.evaluator import ZeroShot

    return [ZeroShot]
