"""For `mkdocs build`: links out of docs/, such as `../recipes/README.md`, lead to the repository on the site."""

import re
from typing import Any

OUTWARD = re.compile(r"\]\(\.\./(?!reference/)([^)\s]*)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page's text with those links turned into addresses; in a page of a subfolder, `../` stays in docs/."""
    if "/" in page.file.src_uri:
        return markdown
    return OUTWARD.sub(rf"]({config.repo_url}/blob/main/\1)", markdown)
