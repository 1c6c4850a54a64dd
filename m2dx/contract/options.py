"""From a component's `__init__` to the pydantic model of its section in a recipe."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from m2dx.contract.paths import RecipePath

LARGEST_INTEGER = 2**63 - 1
LARGEST_NUMBER = 1e18  # larger numbers mean nothing in a recipe, and overflow where they are used

NO_SOURCE: dict[str, Any] = {"use_attribute_docstrings": False}
"""For models that are made here: pydantic would look for their source in every module of every caller, in vain."""


class Section(BaseModel):
    """Base of all recipe sections: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def _faults(self) -> Iterator[str]:
        """What the fields must not be together; each text starts with the field that is at fault."""
        return iter(())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for fault in self._faults():
            raise ValueError(fault)
        return self


class ComponentSpec(Section):
    """A component by name, with its options beside the name."""

    name: str
    """Name of the component; `m2dx plugins` lists those that are installed."""

    component: ClassVar[type | None] = None  # of the model of an installed component: its class

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, value: Any) -> Any:
        """A name alone stands for the component without options."""
        return {"name": value} if isinstance(value, str) else value

    def options(self) -> dict[str, Any]:
        """The options, without the name."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}


@dataclass(frozen=True)
class Signature:
    """The arguments of a component's `__init__`, without self."""

    from_engine: tuple[str, ...]  # positional ones, in order
    options: Mapping[str, inspect.Parameter]  # keyword-only ones


def signature_of(component: type, *, base: type, offered: frozenset[str]) -> Signature:
    """What `__init__` wants from the engine, and from the recipe. Raises `TypeError` when it breaks the rules."""
    owner = next(cls for cls in component.__mro__ if "__init__" in vars(cls))
    if owner in base.__mro__[1:]:  # of object or nn.Module, whose (*args, **kwargs) mean nothing here
        return Signature((), {})
    init: Any = component.__init__  # type: ignore[misc]
    from_engine: list[str] = []
    options: dict[str, inspect.Parameter] = {}
    for parameter in list(inspect.signature(init).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"__init__ must name its arguments, but has {parameter}")
        if parameter.kind is parameter.KEYWORD_ONLY:
            options[parameter.name] = parameter
        elif parameter.name in offered:
            from_engine.append(parameter.name)
        else:
            gives = f"offers {', '.join(sorted(offered))}" if offered else "offers nothing"
            raise TypeError(
                f"the engine cannot give the positional argument {parameter.name!r} of __init__ (it {gives}); "
                "put `*,` before the arguments that are options of the recipe"
            )
    return Signature(tuple(from_engine), options)


def option_docs(component: type) -> dict[str, str]:
    """What the `Options:` block of the class docstring says about each option; subclasses add to their bases."""
    docs: dict[str, str] = {}
    for cls in reversed(component.__mro__):
        docs |= _options_block(inspect.cleandoc(vars(cls).get("__doc__") or ""))
    return docs


def _options_block(doc: str) -> dict[str, str]:
    lines = doc.splitlines()
    start = next((i + 1 for i, line in enumerate(lines) if line.strip() == "Options:"), len(lines))
    docs: dict[str, str] = {}
    name, name_indent = None, 0
    for line in lines[start:]:
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent == 0:
            break
        entry = re.fullmatch(r"\s+(\w+): *(.*)", line)
        if entry and (name is None or indent <= name_indent):
            name, name_indent = entry[1], indent
            docs[name] = entry[2].strip()
        elif name is not None and line.strip():
            docs[name] = f"{docs[name]} {line.strip()}"
    return docs


def option_model(kind: str, component: Any, options: Mapping[str, inspect.Parameter]) -> type[ComponentSpec]:
    """The strict model of a component's section. Raises `TypeError` for an option that it cannot be made for."""
    annotations = _annotations(component, options)
    docs = option_docs(component)
    literal: Any = Literal
    fields: dict[str, Any] = {"name": (literal[component.name], Field(description=_first_line(component)))}
    for name, parameter in options.items():
        if name.startswith("_") or hasattr(ComponentSpec, name) or name in ComponentSpec.model_fields:
            raise TypeError(f"an option cannot be called {name!r}, which has a meaning of its own in recipes")
        annotation = rewrite(annotations[name], _recipe_type)
        default = ... if parameter.default is parameter.empty else parameter.default
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            if default is not ...:
                adapter.validate_python(default)
        except pydantic.PydanticSchemaGenerationError as error:
            raise TypeError(f"the option {name!r} has a type that YAML lacks: {error.message}") from error
        except ValidationError as error:
            raise TypeError(
                f"the default {default!r} of the option {name!r} is not {inspect.formatannotation(annotations[name])}"
            ) from error
        fields[name] = (annotation, Field(default=default, description=docs.get(name)))
    title = f"{kind}_{component.name}"
    doc = _first_line(component)
    model = create_model(title, __base__=ComponentSpec, __doc__=doc, __cls_kwargs__=NO_SOURCE, **fields)
    model.component = component
    return model


def _annotations(component: type, options: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    for name, parameter in options.items():
        if parameter.annotation is parameter.empty:
            raise TypeError(f"the option {name!r} must have a type annotation")
    # Only the options: what the engine gives may be annotated with names that exist under TYPE_CHECKING alone.
    wanted = types.SimpleNamespace(__annotations__={n: p.annotation for n, p in options.items()})
    init: Any = component.__init__  # type: ignore[misc]
    scope = getattr(inspect.unwrap(init), "__globals__", {})
    try:
        return typing.get_type_hints(wanted, globalns=scope, include_extras=True)
    except NameError as error:
        raise TypeError(f"the types of the options must be importable at run time, but {error}") from error


def _first_line(component: type) -> str:
    return inspect.cleandoc(component.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _recipe_type(annotation: Any) -> Any:
    return RecipePath if annotation is Path else guarded_number(annotation)


def guarded_number(annotation: Any) -> Any:
    """For `int` and `float`, with constraints, the type that refuses booleans and what is too large; else None."""
    kind, *constraints = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    annotated: Any = Annotated
    return annotated[(kind, *constraints, pydantic.WrapValidator(_number))] if kind in (int, float) else None


def _number(value: object, validate: pydantic.ValidatorFunctionWrapHandler) -> int | float:
    if isinstance(value, bool):
        raise PydanticCustomError("boolean", "must be a number")
    number: int | float = validate(value)
    largest = LARGEST_INTEGER if isinstance(number, int) else LARGEST_NUMBER
    if math.isfinite(number) and abs(number) > largest:
        raise PydanticCustomError("too_large", "must be at most {largest}", {"largest": f"{largest:.3g}"})
    return number


def rewrite(annotation: Any, swap: Callable[[Any], Any]) -> Any:
    """The annotation with each part that `swap` gives something for replaced by it."""
    swapped = swap(annotation)
    if swapped is not None:
        return swapped
    origin, args = get_origin(annotation), get_args(annotation)
    if not args or origin is Literal:
        return annotation
    if origin is Annotated:
        annotated: Any = Annotated
        return annotated[(rewrite(args[0], swap), *args[1:])]
    new = tuple(rewrite(arg, swap) for arg in args)
    if new == args:
        return annotation
    return functools.reduce(operator.or_, new) if origin in (Union, types.UnionType) else origin[new]


class ComponentUnion:
    """Annotates a field that holds one of several components, told apart by `name`.

    The tags that pydantic puts into the locations of errors have brackets, so that no key is mistaken for one.
    """

    def __init__(self, kind: str, models: Mapping[str, type[ComponentSpec]]) -> None:
        self.kind = kind
        self.models = models

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        choices = {f"<{name}>": handler.generate_schema(model) for name, model in self.models.items()}
        # pydantic wants a choice even where no component is installed; no name gives the tag <>.
        return core_schema.tagged_union_schema(
            choices or {"<>": handler.generate_schema(ComponentSpec)}, discriminator=self._tag
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler) -> Any:
        plain = [
            name
            for name, model in self.models.items()
            if not any(info.is_required() for key, info in model.model_fields.items() if key != "name")
        ]
        described = handler(schema)
        if not plain:
            return described
        return {"oneOf": [{"enum": plain}, *described.get("oneOf", [described])]}

    @staticmethod
    def _tag(value: Any) -> str | None:
        if isinstance(value, dict):
            name = value.get("name")
        else:
            name = value if isinstance(value, str) else getattr(value, "name", None)
        return None if name is None or name == "" else f"<{name}>"
