"""The rules for components of every kind: those of the plugin host, documented options, building."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from pydantic import ValidationError
from torch import Tensor

from m2dx.contract.components import KINDS
from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.contract.hookspecs import hookimpl
from m2dx.contract.host import PluginHost, hook_name
from m2dx.contract.options import ComponentSpec, option_docs
from m2dx.contract.wording import problem_of


class ComponentCheckError(AssertionError):
    """A component breaks the contract of its kind."""


@dataclass(frozen=True)
class Subject:
    """A component under test, with the options that it is tested with."""

    kind: str
    name: str
    host: PluginHost  # knows this component alone
    spec: ComponentSpec

    @classmethod
    def of(cls, kind: str, component: type, options: Mapping[str, Any]) -> Subject:
        """The component after the checks of the plugin host and of its documentation."""
        base, label = KINDS[kind], getattr(component, "__name__", repr(component))
        if not (inspect.isclass(component) and issubclass(component, base)):
            raise ComponentCheckError(f"{label} must be a subclass of m2dx.{base.__name__}")

        def components() -> list[type]:
            return [component]

        host = PluginHost({"tested": SimpleNamespace(**{hook_name(kind): hookimpl(components)})})
        error = host.records[0].error
        if error is not None:
            raise ComponentCheckError(error)
        name: str = component.name  # type: ignore[attr-defined]  # the host has checked it
        model = host.option_model(kind, name)
        _check_docs(component, set(model.model_fields) - {"name"})
        try:
            spec = model.model_validate({"name": name, **options})
        except ValidationError as invalid:
            raise ComponentCheckError(f"{label}: options are not valid: {problem_of(invalid)}") from None
        if model.model_validate(spec.model_dump(mode="json")) != spec:
            raise ComponentCheckError(
                f"{label}: options must stay the same in a recipe's resolved copy, but {spec.options()} do not; "
                "use types that YAML has"
            )
        return cls(kind, name, host, spec)

    def build(self, *, seed: int = 0, **offered: object) -> Any:
        """A new component, built after seeding torch's global generator."""
        with self.attempt("__init__"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.host.build(self.kind, self.spec, **offered)

    def accepted(self, trials: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The trial arguments of the engine for which the component can be built; it may refuse others."""
        found, refusal = [], ""
        for offered in trials:
            try:
                self.host.build(self.kind, self.spec, **offered)
                found.append(offered)
            except RecipeError as error:
                refusal = str(error)
            except M2dxError as error:
                self.fail(f"it must refuse shapes with m2dx.RecipeError, but raised {error!r}")
        all_refused = f"it must accept some shapes, but refuses all that were tried; the last time: {refusal}"
        self.must(bool(found), all_refused)
        return found

    def must(self, holds: bool, text: str) -> None:
        """Fails with the text unless the condition holds."""
        if not holds:
            self.fail(text)

    def fail(self, text: str) -> NoReturn:
        """Raises the error of this component."""
        raise ComponentCheckError(f"{self.kind} {self.name!r}: {text}")

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Turns an exception of the component into an error of its check."""
        try:
            yield
        except ComponentCheckError:
            raise
        except (Exception, SystemExit) as error:
            self.fail(f"{what} must work, but raised {problem_of(error)}")

    def check_output(self, value: object, shape: tuple[int, ...], what: str, hint: str = "") -> None:
        """Checks that a value is a tensor of this shape, of finite floating-point numbers; `what` names its source."""
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        self.must(found == shape, f"{what} must give {shape or 'a scalar'}, but gave {found}{hint}")
        assert isinstance(value, Tensor)
        fits = value.is_floating_point() and value.dtype != torch.float64
        self.must(fits, f"{what} must give floating point, at most float32, but gave {value.dtype}")
        bad = value[~value.isfinite()].tolist()
        self.must(not bad, f"{what} must give finite values, but gave {bad[0] if bad else 0}")


def _check_docs(component: type, options: set[str]) -> None:
    label, docs = component.__name__, option_docs(component)
    if not inspect.cleandoc(vars(component).get("__doc__") or ""):
        raise ComponentCheckError(f"{label} must have a docstring, whose first line `m2dx schema` shows")
    if lacking := sorted(name for name in options if not docs.get(name)):
        raise ComponentCheckError(
            f"{label} must explain each option in its docstring, but not {', '.join(lacking)}; add under `Options:` "
            f"a line such as `    {lacking[0]}: what it is, its unit`"
        )
    inherited = {name for parent in component.__bases__ for name in option_docs(parent)}
    if unknown := sorted(set(docs) - options - inherited):
        raise ComponentCheckError(f"{label} must explain only options that it has, not {', '.join(unknown)}")
