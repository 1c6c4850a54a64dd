"""What holds for components of every kind: the rules of the plugin host, documented options, building."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from pydantic import ValidationError

from m2dx.contract.components import KINDS
from m2dx.contract.errors import PluginError
from m2dx.contract.hookspecs import hookimpl
from m2dx.contract.host import PluginHost, hook_name
from m2dx.contract.options import ComponentSpec, option_docs


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
        base = KINDS[kind]
        label = getattr(component, "__name__", repr(component))
        if not (inspect.isclass(component) and issubclass(component, base)):
            raise ComponentCheckError(f"{label} must be a subclass of m2dx.{base.__name__}")

        def give() -> list[type]:
            return [component]

        host = PluginHost({"tested": SimpleNamespace(**{hook_name(kind): hookimpl(give)})})
        error = host.records[0].error
        if error is not None:
            raise ComponentCheckError(error)
        name: str = component.name  # type: ignore[attr-defined]  # the host has seen to it
        model = host.option_model(kind, name)
        _check_docs(component, set(model.model_fields) - {"name"})
        try:
            spec = model.model_validate({"name": name, **options})
        except ValidationError as invalid:
            lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors())
            raise ComponentCheckError(f"{label}: the options of this check are not valid: {lines}") from None
        if model.model_validate(spec.model_dump(mode="json")) != spec:
            raise ComponentCheckError(
                f"{label}: options must stay the same in a recipe's resolved copy, but {spec.options()} do not; "
                "use types that YAML has"
            )
        return cls(kind, name, host, spec)

    def build(self, *, seed: int = 0, **offered: object) -> Any:
        """A fresh component, torch's global generator seeded; errors of m2dx itself (`RecipeError`) pass through."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return self.host.build(self.kind, self.spec, **offered)
            except PluginError as error:
                raise ComponentCheckError(str(error)) from error

    def must(self, holds: bool, text: str) -> None:
        """Fails with the text unless the condition holds."""
        if not holds:
            self.fail(text)

    def fail(self, text: str) -> NoReturn:
        """Raises the error of this component."""
        raise ComponentCheckError(f"{self.kind} {self.name!r}: {text}")

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Turns what the component raises into its check's error."""
        try:
            yield
        except ComponentCheckError:
            raise
        except Exception as error:
            raise ComponentCheckError(
                f"{self.kind} {self.name!r}: {what} must work, but raised {type(error).__name__}: {error}"
            ) from error


def _check_docs(component: type, options: set[str]) -> None:
    label, docs = component.__name__, option_docs(component)
    if not inspect.cleandoc(vars(component).get("__doc__") or ""):
        raise ComponentCheckError(
            f"{label} must have a docstring: `m2dx schema` shows its first line in editors"
        )
    if lacking := sorted(name for name in options if not docs.get(name)):
        raise ComponentCheckError(
            f"{label} must explain each option in its docstring, but not {', '.join(lacking)}; add under `Options:` "
            f"a line such as `    {lacking[0]}: what it is, its unit`"
        )
    inherited = {name for parent in component.__bases__ for name in option_docs(parent)}
    if unknown := sorted(set(docs) - options - inherited):
        raise ComponentCheckError(
            f"{label} must explain only options that __init__ has, but explains {', '.join(unknown)}"
        )
