"""For `mkdocs build`: what the site needs to show a page as GitHub does."""

import re
from html import escape
from typing import Any

OUTWARD = re.compile(r"\]\(\.\./(?!reference/)([^)\s]*)\)")
"""A link out of docs/, such as `../recipes/README.md`."""
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with links into the repository as addresses, and code in tables without backslashes before pipes."""
    text = re.sub(r"^\|.*", lambda row: CODE.sub(_code, row[0]), markdown, flags=re.MULTILINE)
    if "/" in page.file.src_uri:  # there `../` stays in docs/
        return text
    return OUTWARD.sub(rf"]({config.repo_url}/blob/main/\1)", text)


def _code(found: re.Match[str]) -> str:
    code = escape(found[1], quote=False).replace(r"\|", "&#124;")
    return f"<code>{code}</code>" if r"\|" in found[1] else found[0]
