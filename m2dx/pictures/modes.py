"""Models that are drawn while they train: looked at in eval mode, and left as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode, and back in the mode before it."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
