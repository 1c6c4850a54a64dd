"""The recipes of the repository, their first lines and their values."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from m2dx.recipe.schema import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
PUBLISHED = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != "quickstart")
SMALL = sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.glob("small/*/*.yaml"))


def first_lines(name: str) -> str:
    """A recipe's comment before its first setting."""
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line[:1] == "#", lines))


def field(recipe: Recipe, path: str) -> Any:
    """A recipe's value by its path, such as `model.patch_size`."""
    value: Any = recipe
    for key in path.split("."):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings with their paths."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}" if path else key)
    else:
        yield path, value
