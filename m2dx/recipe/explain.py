"""pydantic's errors in the words of a recipe: where, what must hold, what it is, what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from m2dx.contract.errors import PluginError
from m2dx.contract.options import ComponentUnion
from m2dx.contract.wording import suggestion
from m2dx.recipe.document import Entry, Place, Problem, nearest
from m2dx.recipe.model import Location, locate

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

MOST_SHOWN = 80  # characters of a value


@dataclass(frozen=True)
class _Fault:
    must: str
    rest: str = ""  # the value, and a hint


def explain(
    error: ValidationError, *, root: Entry, model: type[BaseModel], host: PluginHost
) -> list[Problem]:
    """One problem for each key path that has errors; the members of a union share one."""
    faults: dict[tuple[tuple[str | int, ...], Place], list[_Fault]] = {}
    for details in error.errors(include_url=False):
        location = locate(model, details["loc"])
        path = location.path
        if location.union is not None and isinstance(details["input"], dict) and details["input"].get("name"):
            path = (*path, "name")
        place = _place(root, path, details)
        faults.setdefault((path, place), []).append(_fault(details, location, root, host))
    return [Problem(place, _line(path, found)) for (path, place), found in faults.items()]


def _line(path: Sequence[str | int], faults: list[_Fault]) -> str:
    must = " or ".join(dict.fromkeys(fault.must for fault in faults))
    key = f"{'.'.join(map(str, path))}: " if path else ""
    return f"{key}{must}{faults[0].rest}"


def _place(root: Entry, path: Sequence[str | int], details: ErrorDetails) -> Place:
    """Of the value; for a rule over several fields, of the one that the rule's text names first."""
    entry = nearest(root, path)
    if details["type"] == "value_error" and isinstance(entry.value, dict):
        first = str(details["ctx"]["error"]).partition(" ")[0]
        entry = nearest(entry, first.split("."))
    return entry.place


def _fault(details: ErrorDetails, location: Location, root: Entry, host: PluginHost) -> _Fault:
    value, context, kind = details["input"], details.get("ctx", {}), details["type"]
    wrong_component = kind.startswith("union_tag_") or (kind != "missing" and not isinstance(value, dict))
    is_key = details["loc"][-1:] == ("[key]",)
    if location.union is not None and wrong_component and not is_key:
        return _component_fault(location.union, value, host)
    match kind:
        case "missing":
            misspelt = _misspelt_entry(root, location.path[:-1])
            return _Fault("must be given", _field_doc(location.field) + misspelt)
        case "extra_forbidden":
            known = location.section.model_fields if location.section is not None else ()
            hint = suggestion(str(location.path[-1]), known)
            return _Fault(f"unknown key, with value {_shown(value)}", f"; {hint}")
        case "literal_error":
            wanted = context["expected"]
            allowed = re.findall("'([^']*)'", wanted) if isinstance(value, str) else []
            return _Fault(f"must be {wanted}", f", but is {_shown(value)}{_near(str(value), allowed)}")
        case "value_error":
            rest = f" (in {_shown(value)})"
            if isinstance(value, dict):
                rest = _misspelt_entry(root, location.path)
            return _Fault(str(context["error"]), rest)
        case "model_type" | "dict_type" | "dataclass_type":
            rest = _nothing_removed(root, location.path) if value is None else f", but is {_shown(value)}"
            return _Fault("must be a mapping of keys to values", rest)
        case "tuple_type":
            return _Fault("must be a list", f", but is {_shown(value)}")
        case "string_type" if not isinstance(value, dict | list):
            return _Fault("must be text", f", but is {_shown(value)}; write it in quotes")
        case "path_type":
            return _Fault("must be a path", f", but is {_shown(value)}")
        case "string_pattern_mismatch":
            return _Fault(f"must match {context['pattern']}", f", but is {_shown(value)}")
        case _:
            must = details["msg"].partition(", unable")[0].partition(" after validation")[0]
            must = must.replace("Input should", "must", 1).replace("Dictionary should", "must", 1)
            must = must.replace("Unable to parse input string as an integer, exceeded", "must be below the")
            return _Fault(must.replace("Tuple should", "must", 1), f", but is {_shown(value)}")


def _component_fault(union: ComponentUnion, value: Any, host: PluginHost) -> _Fault:
    name = value.get("name") if isinstance(value, dict) else value
    if isinstance(name, str) and name:
        try:
            host.component(union.kind, name)
        except PluginError as error:
            return _Fault(str(error))
    kind = union.kind.replace("_", " ")
    return _Fault(
        f"must be a mapping with the `name` of a component ({kind})",
        f", but is {_shown(value)}; {suggestion(str(name), union.models)}",
    )


def _field_doc(field: FieldInfo | None) -> str:
    doc = (field.description or "").rstrip(".") if field is not None else ""
    return f" ({doc[0].lower()}{doc[1:]})" if doc else ""


def _misspelt_entry(root: Entry, path: Sequence[str | int]) -> str:
    """An override below a misspelt name makes a new entry; the entries beside it tell what was meant."""
    if not path or nearest(root, path).place.line is not None:
        return ""
    return _near(str(path[-1]), _beside(root, path))


def _nothing_removed(root: Entry, path: Sequence[str | int]) -> str:
    """What is said of a null that was to remove a section, and perhaps which one was meant."""
    meant = _near(str(path[-1]), _beside(root, path)) or "; leave it out"
    return f", but is null (null removes what an extended recipe has, and none has this){meant}"


def _beside(root: Entry, path: Sequence[str | int]) -> list[str]:
    """The keys beside the last one of a path."""
    entries = nearest(root, path[:-1]).value
    return [key for key in entries if key != path[-1]] if isinstance(entries, dict) else []


def _near(word: str, known: Sequence[str]) -> str:
    hint = suggestion(word, known)
    return f"; {hint}" if hint.startswith("did you mean") else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."
