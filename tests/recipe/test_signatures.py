"""The rule that ties components to recipes: positional from the engine, keyword-only from the recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
from pydantic import Field, ValidationError
from torch import Tensor

import m2dx
from m2dx.contract.components import KINDS, OFFERED
from m2dx.contract.options import option_docs, option_model, signature_of

if TYPE_CHECKING:
    from nowhere import Shapes


class _Loss(m2dx.Loss):
    name = "example"

    def forward(self, prediction, target):
        return prediction


class _Dataset(m2dx.Dataset):
    name = "example"

    def clips(self, split=None):
        return []


def model_of(component, kind="loss"):
    signature = signature_of(component, base=KINDS[kind], offered=OFFERED.get(kind, frozenset()))
    return option_model(kind, component, signature.options)


def test_a_component_without_init_has_no_options():
    class Mapper(m2dx.OnlineMapper):
        name = "example"

        def forward(self, tokens):
            return tokens

    assert signature_of(_Loss, base=m2dx.Loss, offered=frozenset()).options == {}
    assert signature_of(_Dataset, base=m2dx.Dataset, offered=frozenset()).from_engine == ()
    assert signature_of(Mapper, base=m2dx.OnlineMapper, offered=OFFERED["online_mapper"]).from_engine == (
        "shapes",
    )


def test_options_are_coerced_and_strictly_named():
    class Component(_Loss):
        def __init__(
            self,
            *,
            rate: float,
            mode: Literal["a", "b"] = "a",
            size: tuple[int, int] = (1, 2),
            share: Annotated[float, Field(ge=0, le=1)] = 0.5,
            flag: bool = False,
        ) -> None: ...

    model = model_of(Component)
    spec = model.model_validate({"name": "example", "rate": "3e-4", "size": ["3", 4], "flag": "yes"})
    assert spec.options() == {"rate": 3e-4, "mode": "a", "size": (3, 4), "share": 0.5, "flag": True}
    for bad in (
        {"rate": "fast"},
        {},
        {"rate": 1, "share": 2},
        {"rate": 1, "mode": "c"},
        {"rate": 1, "more": 2},
    ):
        with pytest.raises(ValidationError):
            model.model_validate({"name": "example", **bad})
    with pytest.raises(ValidationError):
        model.model_validate({"name": "other", "rate": 1})


def test_a_dataclass_is_a_component_like_any_other():
    @dataclass(kw_only=True)
    class Component(_Dataset):
        path: Path
        depth: int = 3

    spec = model_of(Component, "dataset").model_validate({"name": "example", "path": "/a", "depth": "4"})
    assert spec.options() == {"path": Path("/a"), "depth": 4}


def test_annotations_of_what_the_engine_gives_are_not_evaluated():
    class Mapper(m2dx.OnlineMapper):
        name = "example"

        def __init__(self, shapes: "Shapes", *, width: "int" = 3) -> None: ...

        def forward(self, tokens):
            return tokens

    assert model_of(Mapper, "online_mapper").model_validate({"name": "example"}).options() == {"width": 3}


def _component(init):
    return type("Component", (_Loss,), {"__init__": init})


def positional(self, target_dim): ...


def variable(self, **options): ...


def untyped(self, *, size): ...


def tensor(self, *, weights: Tensor): ...


def unknown_type(self, *, shapes: "Shapes"): ...


def named_name(self, *, name: str): ...


def named_options(self, *, options: int): ...


def private(self, *, _size: int): ...


def wrong_default(self, *, size: int = None): ...  # noqa: RUF013


BAD = {
    positional: r"cannot give the positional argument 'target_dim' .* \(it offers nothing\); put `\*,` before",
    variable: r"must name its arguments, but has \*\*options",
    untyped: r"the option 'size' must have a type annotation",
    tensor: r"the option 'weights' has a type that YAML lacks",
    unknown_type: r"must be importable at run time, but name 'Shapes' is not defined",
    named_name: r"cannot be called 'name'",
    named_options: r"cannot be called 'options'",
    private: r"cannot be called '_size'",
    wrong_default: r"the default None of the option 'size' is not int",
}


@pytest.mark.parametrize(("init", "reason"), BAD.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_broken_rule_has_its_reason(init, reason):
    with pytest.raises(TypeError, match=reason):
        model_of(_component(init))


def test_documentation_of_options_is_read_from_the_docstrings():
    class Parent(_Loss):
        """A parent.

        Options:
            size: in samples
            rate: in Hz:
                a long
                story

        Another paragraph: no option.
        """

    class Child(Parent):
        """A child.

        Options:
            size: in seconds
        """

    class Silent(_Loss): ...

    assert option_docs(Child) == {"size": "in seconds", "rate": "in Hz: a long story"}
    assert option_docs(Silent) == {}
