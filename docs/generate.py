"""Writes the tables of recipe fields into recipes.md: `python docs/generate.py`, after a field has changed.

A table stands between `<!-- fields: SECTION -->` and `<!-- end of fields -->`; it holds the fields of a section of
the recipe (`.`: of the recipe itself) or of a hook's components, as `m2dx show` prints them, for the core alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from m2dx.contract.host import PluginHost
from m2dx.jobs import core
from m2dx.recipe.model import FieldLine, field_lines

PAGE = Path(__file__).parent / "recipes.md"
TABLE = re.compile(r"(<!-- fields: (.*?) -->\n).*?(<!-- end of fields -->)", re.DOTALL)


def render(page: str) -> str:
    """The page with its tables written anew."""
    lines = field_lines(PluginHost({"m2dx": core}))
    return TABLE.sub(lambda match: f"{match[1]}{_table(match[2], lines)}{match[3]}", page)


def _table(group: str, lines: Sequence[FieldLine]) -> str:
    chosen = [line for line in lines if _group(line, lines) == group]
    if not chosen:
        raise SystemExit(f"there are no recipe fields of {group!r}")
    rows = "".join(
        f"| `{line.path}` | {_code(line.type)} | {_code(line.default)} | {_sentence(line.description)} |\n"
        for line in chosen
    )
    return f"\n| field | type | default | meaning |\n|---|---|---|---|\n{rows}\n"


def _group(line: FieldLine, lines: Sequence[FieldLine]) -> str:
    """The section that a field is in, or is; "." for fields of the recipe itself."""
    first, below, _ = line.path.partition(".")
    return first if below or any(other.path.startswith(f"{first}.") for other in lines) else "."


def _code(text: str) -> str:
    if text in ("", "required"):
        return text
    escaped = text.replace("|", "\\|")
    return f"`{escaped}`"


def _sentence(text: str) -> str:
    """Components' options are documented in half sentences; here all are whole ones."""
    text = text.replace("|", "\\|").rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
