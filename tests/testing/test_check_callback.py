"""check_callback fails for each break of the contract that it is meant to find."""

from typing import Any

import pytest
import torch

import m2dx
from m2dx.testing import ComponentCheckError, check_callback, check_component


class Listening(m2dx.Callback):
    """Hears all."""

    name = "listening"


class Counting(m2dx.Callback):
    """Counts steps in a weight."""

    name = "counting"
    changes = True

    def __init__(self) -> None:
        self.count = torch.zeros(1)

    @torch.no_grad()
    def after_step(self, model: Any, step: int, total_steps: int) -> None:
        self.count += 1
        model.online.cls_token.add_(self.count)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


class Quiet(Counting):
    """Is never asked."""

    changes = False


class Failing(Listening):
    """Cannot be told."""

    def scores(self, step: int, scores: Any) -> None:
        raise IndexError("no scores")


class Forgetting(Counting):
    """Counts anew."""

    def load_state_dict(self, state: Any) -> None:
        pass


class Objects(Counting):
    """Keeps itself."""

    def state_dict(self) -> dict[str, Any]:
        return {"self": self}


class Hearing(Counting):
    """Counts what it hears, too."""

    def metrics(self, line: Any) -> None:
        self.count += 1


def changed(component: type, **methods: Any) -> type:
    return type("Changed", (component,), {"__doc__": "Changed.", **methods})


def test_sound_callbacks_pass() -> None:
    check_callback(Listening)
    check_component(Counting)


@pytest.mark.parametrize(
    ("component", "match"),
    [
        (Quiet, "after_step, state_dict, load_state_dict would never be called; set `changes = True`"),
        (Failing, "scores must work, but raised IndexError: no scores"),
        (Forgetting, "a resumed run must go on as one that was not stopped"),
        (Hearing, "after_step must do the same in each process, of which the main one alone hears"),
        (changed(Counting, stop=lambda self: True), "stop must give a text, or None, but gave True"),
        (changed(Counting, state_dict=lambda self: None), "state_dict must give a dict, but gave None"),
        (Objects, "loading its state from a checkpoint, with weights_only, must work"),
    ],
)
def test_a_broken_callback_is_found(component: Any, match: str) -> None:
    with pytest.raises(ComponentCheckError, match=match):
        check_callback(component)
