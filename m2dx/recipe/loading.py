"""Recipes from files, with overrides, and from plain data; every error of a recipe in one report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from m2dx.recipe.document import Entry, Place, Problems, plain, write_yaml
from m2dx.recipe.explain import explain
from m2dx.recipe.files import apply_overrides, read_recipe
from m2dx.recipe.model import recipe_model
from m2dx.recipe.schema import Recipe

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, host: PluginHost) -> Recipe:
    """A recipe file with its defaults filled in, on top of what it extends, with `key.path=value` overrides on top.

    Paths in it are absolute afterwards; `name` is the file's name unless it is given. Raises `RecipeError`, whose text
    has a line for every problem: `file:line: key.path: what must hold, what it is, what was probably meant`.
    """
    path = Path(path)
    problems = Problems()
    root = apply_overrides(read_recipe(path, problems=problems), overrides, problems=problems)
    assert isinstance(root.value, dict)
    if "name" not in root.value:
        name = Entry(_identifier(path.stem), Place(str(path), 1, path.parent))
        root = Entry({"name": name, **root.value}, root.place)
    return _validated(root, plain(root), problems, host)


def recipe_from_mapping(mapping: Mapping[str, Any], *, host: PluginHost, source: str) -> Recipe:
    """A recipe from what `recipe_to_mapping` gave; `source` is what it is called in errors (a checkpoint's path)."""
    return _validated(Entry({}, Place(source, None, Path())), dict(mapping), Problems(), host)


def recipe_to_mapping(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data that JSON and YAML can hold, every field given; `recipe_from_mapping` reverses it."""
    return recipe.model_dump(mode="json")


def recipe_to_yaml(recipe: Recipe) -> str:
    """The recipe as a file that `load_recipe` reads, every field given."""
    return write_yaml(recipe_to_mapping(recipe))


def _validated(root: Entry, values: Any, problems: Problems, host: PluginHost) -> Recipe:
    model = recipe_model(host)
    try:
        recipe = model.model_validate(values)
    except ValidationError as error:
        problems += explain(error, root=root, model=model, host=host)
    if problems:
        raise problems.error()
    return recipe


def _identifier(stem: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")
    return name if re.match(r"[A-Za-z]", name) else f"recipe_{name}".rstrip("_")
