"""The recipe's pydantic model for the components that are installed, its JSON schema, and its list of fields."""

from __future__ import annotations

import functools
import inspect
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from m2dx.contract.options import NO_SOURCE, ComponentSpec, ComponentUnion, Section, guarded_number, rewrite
from m2dx.recipe.schema import Kind, Recipe

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

S = TypeVar("S", bound=Section)


def recipe_model(host: PluginHost) -> type[Recipe]:
    """`Recipe` with each component section replaced by a union over the usable components of its kind."""
    return _recipe_model(host, host.revision)


@functools.lru_cache(maxsize=4)
def _recipe_model(host: PluginHost, revision: int) -> type[Recipe]:
    return _Builder(host).section(Recipe)


@functools.cache
def _has_components(section: type[Section]) -> bool:
    """Whether a section, or one within it, has a field for a component."""
    found: list[bool] = []

    def note(annotation: Any) -> Any:
        if get_origin(annotation) is Annotated:
            found.append(any(isinstance(meta, Kind) for meta in annotation.__metadata__))
        elif isinstance(annotation, type) and issubclass(annotation, Section):
            found.append(_has_components(annotation))
        return None

    for hint in typing.get_type_hints(section, include_extras=True).values():
        rewrite(hint, note)
    return any(found)


@functools.cache
def _without_components(section: type[Section]) -> type[Section]:
    """A section that is the same whatever is installed; made once, so that values of several hosts compare."""
    return _Builder(None).rebuilt(section)


class _Builder:
    def __init__(self, host: PluginHost | None) -> None:
        self.host = host
        self.unions: dict[str, ComponentUnion] = {}

    def section(self, section: type[S]) -> type[S]:
        if _has_components(section):
            return self.rebuilt(section)
        return _without_components(section)  # type: ignore[return-value]

    def rebuilt(self, section: type[S]) -> type[S]:
        hints = typing.get_type_hints(section, include_extras=True)
        fields: dict[str, Any] = {}
        for name, info in section.model_fields.items():
            annotation = rewrite(hints[name], self._swap)
            if annotation == hints[name]:
                continue
            default = info.default
            if isinstance(default, ComponentSpec):
                default = default.name
            elif isinstance(default, BaseModel):  # of the section before; validated where it is needed
                default = default.model_dump()
            default = ... if info.is_required() else default
            fields[name] = (annotation, Field(default=default, description=info.description))
        if not fields:
            return section
        own: dict[str, Any] = {"__doc__": section.__doc__, "__module__": section.__module__, **fields}
        return create_model(section.__name__, __base__=section, __cls_kwargs__=NO_SOURCE, **own)

    def _swap(self, annotation: Any) -> Any:
        if get_origin(annotation) is Annotated:
            kind = next((meta.kind for meta in annotation.__metadata__ if isinstance(meta, Kind)), None)
            return guarded_number(annotation) if kind is None else Annotated[ComponentSpec, self._union(kind)]
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return self.section(annotation)
        return guarded_number(annotation)

    def _union(self, kind: str) -> ComponentUnion:
        if kind not in self.unions:
            assert self.host is not None
            models = {name: self.host.option_model(kind, name) for name in self.host.names(kind)}
            self.unions[kind] = ComponentUnion(kind, models)
        return self.unions[kind]


@dataclass(frozen=True)
class Location:
    """Where in a recipe an error of pydantic is."""

    path: tuple[str | int, ...]  # keys and indices, without the tags of unions
    section: type[BaseModel] | None  # that has the last key as a field
    union: ComponentUnion | None  # of the value at the path

    @property
    def field(self) -> FieldInfo | None:
        """The field at the path; None: unknown, or the entry of a dict or a list."""
        return None if self.section is None else self.section.model_fields.get(str(self.path[-1]))


def locate(model: type[BaseModel], location: tuple[str | int, ...]) -> Location:
    """The key path that a location in a pydantic error stands for."""
    path: list[str | int] = []
    section: type[BaseModel] | None = None
    annotation: Any = model
    for step in location:
        if step == "[key]":  # the error is about the key itself
            continue
        inner = _without_none(annotation)
        if isinstance(inner, ComponentUnion):
            annotation = inner.models[str(step)[1:-1]]
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            section = inner
            path.append(step)
            info = inner.model_fields.get(str(step))
            annotation = None if info is None else _annotated(info)
        elif get_origin(inner) is dict:
            section = None
            path.append(step)
            annotation = get_args(inner)[-1]
        elif isinstance(step, int):
            section, items = None, get_args(inner)
            annotation = items[0] if items[1:] == (...,) else None
            path.append(step)
    inner = _without_none(annotation)
    return Location(tuple(path), section, inner if isinstance(inner, ComponentUnion) else None)


def _annotated(info: FieldInfo) -> Any:
    union = next((meta for meta in info.metadata if isinstance(meta, ComponentUnion)), None)
    return info.annotation if union is None else union


def _without_none(annotation: Any) -> Any:
    """The one type of `T | None`, without what is annotated; a component section as its union."""
    if get_origin(annotation) is Annotated:
        union = next((meta for meta in annotation.__metadata__ if isinstance(meta, ComponentUnion)), None)
        return union or _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not types.NoneType]
        return _without_none(members[0]) if len(members) == 1 else annotation
    return annotation


def json_schema(host: PluginHost) -> dict[str, Any]:
    """The JSON schema of a recipe file, for editors.

    A file with `extends` may leave out or null what its base gives, so that the schema asks for no keys besides
    `data`; `m2dx check` does.
    """
    schema = recipe_model(host).model_json_schema()
    _allow_partial(schema)
    schema["properties"]["extends"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "title": "Extends",
        "description": "Recipe file that this one changes, or several, later ones on top; relative to this file's "
        "folder.",
    }
    schema["anyOf"] = [{"required": ["data"]}, {"required": ["extends"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _allow_partial(schema: Any) -> None:
    if isinstance(schema, list):
        for item in schema:
            _allow_partial(item)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object":
        schema.pop("required", None)
        entries = schema.get("additionalProperties")
        if isinstance(entries, dict):
            schema["additionalProperties"] = {"anyOf": [entries, {"type": "null"}]}
    if "oneOf" in schema:  # without a name, several components may fit
        schema["anyOf"] = schema.pop("oneOf")
    for value in schema.values():
        _allow_partial(value)


class FieldLine(NamedTuple):
    """One field of a recipe, for `m2dx show`."""

    path: str  # component options: hook.component.option, e.g. losses.norm_mse.x
    type: str
    default: str  # "required" where there is none
    description: str


def field_lines(host: PluginHost) -> list[FieldLine]:
    """Every field of a recipe with its line of documentation, then the options of the installed components."""
    from m2dx.contract.components import KINDS  # imports torch
    from m2dx.contract.host import hook_name

    lines = list(_section_lines(recipe_model(host), ""))
    for kind in KINDS:
        for name in host.names(kind):
            prefix = f"{hook_name(kind)}.{name}."
            model = host.option_model(kind, name)
            lines += [line for line in _section_lines(model, prefix) if line.path != f"{prefix}name"]
    return lines


def _section_lines(model: type[BaseModel], prefix: str) -> Iterator[FieldLine]:
    for name, info in model.model_fields.items():
        default = "required" if info.is_required() else _default_text(info.default)
        text = type_text(Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation)
        yield FieldLine(f"{prefix}{name}", text, default, info.description or "")
        inner, below = _without_none(_annotated(info)), f"{prefix}{name}."
        if get_origin(inner) is dict:
            inner, below = _without_none(get_args(inner)[1]), f"{below}<name>."
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _section_lines(inner, below)


def _default_text(default: Any) -> str:
    if isinstance(default, BaseModel | dict) and default:
        return ""  # its own fields have theirs
    return str(default) if isinstance(default, Path) else json.dumps(default, default=str, ensure_ascii=False)


def type_text(annotation: Any) -> str:
    """A type in the words of a recipe: `int > 0`, `'pad' | 'repeat'`, `loss component`."""
    inner = annotation if isinstance(annotation, ComponentUnion) else _without_none(annotation)
    if annotation is inner and isinstance(inner, ComponentUnion):
        return f"{inner.kind.replace('_', ' ')} component"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if isinstance(inner, ComponentUnion):
            return type_text(inner)
        return f"{type_text(args[0])}{','.join(filter(None, map(_constraints, args[1:])))}"
    if origin is Literal:
        return " | ".join(map(repr, args))
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_text, args))
    if origin is tuple and args[-1] is not ...:
        return f"[{', '.join(map(type_text, args))}]"
    if args:
        name = "list" if origin is tuple else getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join(type_text(arg) for arg in args if arg is not ...)}]"
    if annotation is types.NoneType:
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    return inspect.formatannotation(annotation).rpartition(".")[2]


def _constraints(meta: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return ",".join(
        f" {sign} {getattr(part, name):g}"
        for part in getattr(meta, "metadata", [meta])  # of a pydantic Field
        for name, sign in signs.items()
        if getattr(part, name, None) is not None
    )
