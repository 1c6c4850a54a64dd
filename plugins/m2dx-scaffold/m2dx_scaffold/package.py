"""A new plugin from a template: a whole package that works, to be filled with components of one's own."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from m2dx.contract import hookspecs
from m2dx.contract.atomic import replace_text
from m2dx.contract.errors import RecipeError
from m2dx.contract.wording import suggestion

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

MOST_CHARACTERS = 40  # of a name
TEMPLATE = files("m2dx_scaffold") / "template"
DEFAULT = "offline_encoder"

TEMPLATES = {
    "gitignore.in": ".gitignore",
    "test.yml.in": ".github/workflows/test.yml",
    "README.md.in": "README.md",
    "pyproject.toml.in": "pyproject.toml",
    "recipe.yaml.in": "recipe.yaml",
    "kinds/{kind}.py.in": "{module}/__init__.py",
    "py.typed.in": "{module}/py.typed",
    "sample.py.in": "{module}/sample.py",
    "test_plugin.py.in": "tests/test_{module}.py",
}
"""Template -> file of the package; tests of the default kind are longer, as an example (test_{kind}.py.in)."""


def kinds() -> list[str]:
    """The kinds of component, of which there is a template each."""
    found = sorted(path.name.removesuffix(".py.in") for path in (TEMPLATE / "kinds").iterdir())
    return [kind for kind in found if hasattr(hookspecs, f"{kind}es" if kind.endswith("s") else f"{kind}s")]


@dataclass(frozen=True)
class PluginNames:
    """What follows from the name of a plugin, such as `whale-song`, which is also that of its entry point."""

    name: str
    kind: str = DEFAULT  # of its component

    def __post_init__(self) -> None:
        if self.kind not in kinds():
            hint = suggestion(self.kind, kinds())
            hint = f"; {hint}" if hint.startswith("did you mean") else ""
            raise RecipeError(f"--kind must be one of {', '.join(kinds())}, but is {self.kind!r}{hint}")
        must = "the name of a plugin must"
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name, re.ASCII):
            likely = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).removeprefix("m2dx-")
            likely = likely.lstrip("-0123456789").rstrip("-")
            hint = f"; {likely!r} would do" if likely else ""
            characters = "small letters, digits and single hyphens, and start with a letter"
            raise RecipeError(f"{must} be {characters}, but is {self.name!r}{hint}")
        if self.name.startswith("m2dx-"):
            raise RecipeError(
                f"the package is called m2dx- and the name, so leave the first m2dx- out: {self.name[5:]}"
            )
        if len(self.name) > MOST_CHARACTERS:
            raise RecipeError(f"{must} have at most {MOST_CHARACTERS} characters, but has {len(self.name)}")

    @property
    def distribution(self) -> str:
        """The package that pip installs."""
        return f"m2dx-{self.name}"

    @property
    def module(self) -> str:
        """The package that Python imports."""
        return self.distribution.replace("-", "_")

    @property
    def component(self) -> str:
        """The component, as recipes call it."""
        return f"{self.name.replace('-', '_')}_{'bands' if self.kind == DEFAULT else self.kind}"


def write_plugin(name: str, folder: Path, kind: str = DEFAULT) -> Path:
    """Writes the package m2dx-NAME, with a component of a kind, into a folder, and gives its path.

    Raises `RecipeError` where the name cannot be one, something of that name is there, or nothing can be written.
    """
    names = PluginNames(name, kind)
    contents = render(names)
    package = folder / names.distribution
    try:
        folder.mkdir(parents=True, exist_ok=True)
        package.mkdir()
    except OSError as error:
        if package.exists() or package.is_symlink():
            raise RecipeError(
                f"{package} must not exist yet; choose another name or another folder (--folder), or move it away"
            ) from error
        raise _not_written(package, error) from error
    try:
        for file, text in contents.items():
            replace_text(package / file, text)
    except OSError as error:
        shutil.rmtree(package, ignore_errors=True)  # half a plugin, which the next try would stumble over
        raise _not_written(package, error) from error
    return package


def _not_written(package: Path, error: OSError) -> RecipeError:
    return RecipeError(
        f"{package} cannot be written: {error.strerror or error}; choose another folder (--folder)"
    )


def render(names: PluginNames) -> dict[str, str]:
    """The text of each file of the package, by its path there."""
    environment = Environment(
        variable_start_string="<<",  # workflows and recipes have braces of their own
        variable_end_string=">>",
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,  # lines of conditions leave none
        autoescape=False,
    )
    component = (TEMPLATE / f"kinds/{names.kind}.py.in").read_text(encoding="utf-8")
    summary, class_name = re.findall(r'^"""An m2dx plugin: (.*)\.|^class (\w+)', component, re.MULTILINE)[:2]
    values = {part: getattr(names, part) for part in ("name", "kind", "distribution", "module", "component")}
    values |= {"label": names.kind.replace("_", " "), "summary": summary[0], "class_name": class_name[1]}
    rendered = {}
    for template, file in TEMPLATES.items():
        place = TEMPLATE / template.format(kind=names.kind)
        if template.startswith("test_") and names.kind == DEFAULT:
            place = TEMPLATE / f"test_{DEFAULT}.py.in"
        text = place.read_text(encoding="utf-8")
        rendered[file.format(module=names.module)] = environment.from_string(text).render(values)
    return rendered


def check_not_installed(names: PluginNames, host: PluginHost) -> None:
    """Raises `RecipeError` where an installed plugin has the name, or a component of the new plugin's."""
    name = names.name
    points = importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP).names
    if name in points or name in (record.name for record in host.records):
        raise RecipeError(
            f"the name of a new plugin must not be that of an installed one, but {name!r} is (`m2dx plugins` lists "
            "them); choose another, or uninstall that one"
        )
    try:
        found = importlib.metadata.version(names.distribution)
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is not None:
        raise RecipeError(
            f"the package {names.distribution} {found} is installed already; choose another name, or uninstall it"
        )
    for record in host.records:
        if names.component in record.components.get(names.kind, ()):
            raise RecipeError(
                f"the new plugin's {names.kind.replace('_', ' ')} would be {names.component!r}, which the plugin "
                f"{record.name!r} has already; choose another name, or uninstall that one"
            )
