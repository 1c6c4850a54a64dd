"""The pages in docs/ explain every hook, command, option and recipe field, and what they show is true."""

import importlib.util
import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import m2dx_finetune
import m2dx_pack
import pytest
import typer

import m2dx
from m2dx import cli, results, testing
from m2dx.cli.plugin_commands import COMMAND_GROUP
from m2dx.contract import hookspecs
from m2dx.contract.components import KINDS
from m2dx.contract.host import PluginHost
from m2dx.jobs import core
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.model import field_lines
from m2dx.results.published import TABLE_GROUP

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("**/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
BASE = "data: {sets: {field: {dataset: {name: folder, path: recordings}}}}\n"


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(language: str) -> list[Any]:
    """Code blocks of docs/ in a language, with the comment above each."""
    return [
        pytest.param(match["mark"] or "", match["text"], id=f"{page.name}:{number}")
        for page in sorted(DOCS.glob("*.md"))
        for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), 1)
        if match["language"] == language
    ]


def section(page: str, heading: str) -> str:
    """Text below a heading of the second level; empty where there is none."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text_of(page), re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize(
    "hook", [name for name, value in vars(hookspecs).items() if hasattr(value, "m2dx_spec")]
)
def test_each_hook_is_explained(hook: str) -> None:
    assert f"| `{hook}` |" in text_of("plugins.md")


@pytest.mark.parametrize("kind", KINDS)
def test_each_method_of_a_component_is_explained(kind: str) -> None:
    own = [name for name, value in vars(KINDS[kind]).items() if callable(value) and not name.startswith("_")]
    text = text_of("plugins.md")
    assert [name for name in own if f"`{name}" not in text and f".{name}(" not in text] == []


@pytest.mark.parametrize("group", [hookspecs.ENTRY_POINT_GROUP, COMMAND_GROUP, TABLE_GROUP])
def test_each_group_of_entry_points_is_explained(group: str) -> None:
    assert re.search(rf'\[project\.entry-points\."?{re.escape(group)}"?\]', text_of("plugins.md"))


@pytest.mark.parametrize("name", testing.__all__)
def test_each_check_for_plugins_is_explained(name: str) -> None:
    assert f"`{name}" in section("plugins.md", "Testing")


def test_each_public_name_is_in_the_reference_once() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md")))
    shown = sorted(re.findall(r"^::: (m2dx\.\w+|m2dx\.results\.\w+)$", pages, re.MULTILINE))
    # The hooks are shown by their module, as the checks are; the other is no object with a text.
    elsewhere = {"m2dx.testing"}
    public = {f"m2dx.{name}" for name in m2dx.__all__} - {"m2dx.hookimpl", "m2dx.__version__"}
    of_results = (
        name for name, value in vars(results).items() if not (name.isupper() or inspect.ismodule(value))
    )
    public |= {f"m2dx.results.{name}" for name in of_results if not name.startswith("_")}
    assert shown == sorted(public | elsewhere)


COMMANDS = typer.main.get_command(cli.app)


@pytest.mark.parametrize("name", COMMANDS.commands)  # type: ignore[attr-defined]
def test_each_command_is_explained_with_its_arguments(name: str) -> None:
    explained = section("cli.md", f"m2dx {name}")
    assert explained, f"docs/cli.md has no section `## m2dx {name}`"
    for parameter in COMMANDS.commands[name].params:  # type: ignore[attr-defined]
        if parameter.param_type_name == "argument":
            assert parameter.metavar.strip("[].") in explained
        else:
            assert [
                o for o in (*parameter.opts, *parameter.secondary_opts) if f"`{o}`" not in explained
            ] == []


def test_options_of_the_program_itself_are_explained() -> None:
    options = [option for parameter in COMMANDS.params for option in parameter.opts]
    assert [option for option in options if option not in text_of("cli.md")] == []


def test_no_command_is_explained_that_is_not_there() -> None:
    explained = re.findall(r"^## m2dx ([\w-]+)$", text_of("cli.md"), re.MULTILINE)
    assert explained == list(COMMANDS.commands)  # type: ignore[attr-defined]


def test_the_tables_of_recipe_fields_are_up_to_date() -> None:
    generate = module_at(DOCS / "generate.py")
    assert generate.render(text_of("recipes.md")) == text_of("recipes.md"), "run `python docs/generate.py`"


def test_each_recipe_field_is_in_one_table() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| .* \| .* \| \S.* \|$", text_of("recipes.md"), re.MULTILINE)
    assert sorted(rows) == sorted(line.path for line in field_lines(PluginHost({"m2dx": core})))


@pytest.mark.parametrize(
    ("source", "text", "shown"),
    [
        (
            "a.md",
            r"| `x` | `Path \| <b>` | a \| b |",
            r"| `x` | <code>Path &#124; &lt;b&gt;</code> | a \| b |",
        ),
        ("b/a.md", r"| `a` \| `b` | [c](../c.md) |", r"| `a` \| `b` | [c](../c.md) |"),
        ("a.md", r"[c](../c.md) `a \| b`", r"[c](U/blob/main/c.md) `a \| b`"),
    ],
)
def test_the_site_shows_pipes_and_links_as_github_does(source: str, text: str, shown: str) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
    hook = module_at(DOCS / "hooks.py").on_page_markdown
    assert hook(text, page=page, config=SimpleNamespace(repo_url="U"), files=None) == shown


def test_links_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if link.startswith(("http://", "https://", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name}: {link}")
    assert broken == []


def test_files_and_rooms_of_the_architecture_are_there() -> None:
    text = text_of("architecture.md")
    files = re.findall(r"`((?:\w+/)+\w+\.(?:py|html))`", text)
    assert len(files) > 20 and [name for name in files if not (ROOT / "m2dx" / name).exists()] == []
    rooms = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert set(rooms) == {path.parent.name for path in (ROOT / "m2dx").glob("*/__init__.py")}
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    assert [room for layer in layers for room in layer.split(" | ")] == [
        "testing",
        "__main__",
        *rooms[-2::-1],
    ]


def test_plugins_that_import_rooms_say_so() -> None:
    text = text_of("architecture.md")
    for plugin in sorted((ROOT / "plugins").glob("m2dx-*")):
        code = "".join(file.read_text(encoding="utf-8") for file in sorted(plugin.glob("m2dx_*/**/*.py")))
        if re.search(r"^\s*from m2dx\.(?!testing\b|results import)", code, re.MULTILINE):
            readme = (plugin / "README.md").read_text(encoding="utf-8")
            assert plugin.name in text and re.search(r"install both\s+from the same version", readme), (
                plugin.name
            )


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def host() -> PluginHost:
    """The core, m2dx-finetune, m2dx-pack, and the example plugin that plugins.md builds."""
    plugin = module_at(ROOT / "examples" / "m2dx-spectral" / "m2dx_spectral.py")
    host = PluginHost({"m2dx": core, "finetune": m2dx_finetune, "pack": m2dx_pack, "spectral": plugin})
    assert [record.error for record in host.records] == [None] * 4
    return host


@pytest.mark.parametrize(("mark", "text"), blocks("yaml"))
def test_recipes_are_valid(
    mark: str, text: str, host: PluginHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mark.startswith("recipe: "), (
        "write `<!-- recipe: NAME.yaml -->` or `<!-- recipe: part -->` above it"
    )
    monkeypatch.setenv("LIBRISPEECH", str(tmp_path))
    for other in blocks("yaml"):  # that it may extend
        name = other.values[0].removeprefix("recipe: ")
        (tmp_path / name).write_text(other.values[1], encoding="utf-8")
    name = mark.removeprefix("recipe: ")
    if name == "part":
        name = "whole.yaml"
        (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
        (tmp_path / name).write_text(f"extends: base.yaml\n{text}", encoding="utf-8")
    load_recipe(tmp_path / name, host=host)


@pytest.mark.parametrize(("mark", "text"), [*blocks("python"), *blocks("toml")])
def test_code_is_that_of_the_example(mark: str, text: str) -> None:
    assert mark.startswith("code: "), "write `<!-- code: PATH -->` above it, the file that it is taken from"
    assert text in (ROOT / mark.removeprefix("code: ")).read_text(encoding="utf-8")


def test_the_error_report_is_what_m2dx_says(
    tmp_path: Path, host: PluginHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe with these mistakes gives the lines that recipes.md shows."""
    (report,) = re.findall(
        r"^\$ m2dx check \S+ (\S+)\nerror: (.*?)^```", text_of("recipes.md"), re.DOTALL | re.MULTILINE
    )
    monkeypatch.chdir(tmp_path)
    Path("lungs.yaml").write_text(
        "data:\n  sets:\n    lungs: {dataset: {name: csv, path: lungs.csv}}\n  short_clips: repeat\n"
        "audio: {crop_second: 4.0}\nmodel: {size: smal, mask_ratio: 1.5}\ntasks:\n  diagnosis:\n"
        "    offline_encoder: {name: labels}\n    online_mapper: {name: pool_liner}\n    loss: {name: bce}\n",
        encoding="utf-8",
    )
    with pytest.raises(m2dx.RecipeError) as error:
        load_recipe("lungs.yaml", [report[0]], host=host)
    assert str(error.value) == report[1].strip()
