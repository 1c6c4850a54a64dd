"""Paths in recipes: `~` and `${VAR}` are expanded, and relative ones are relative to the file that they stand in.

A relative value of a variable that begins a path is relative to the current folder, where it was typed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from m2dx.contract.errors import CheckpointError
from m2dx.contract.package import STARTER, find_encoder

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class PlacedText(str):
    """Text of a recipe file that knows the folder that a relative path in it starts from."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> PlacedText:
        placed = super().__new__(cls, text)
        placed.folder = folder
        return placed


def expand(text: str, *, folder: Path) -> Path:
    """The absolute path that a text of a recipe stands for. Raises `ValueError` for a variable that is not set."""

    def value_of(match: re.Match[str]) -> str:
        variable = match[1]
        if not os.environ.get(variable):
            raise ValueError(
                f"the environment variable {variable} must be set, but is not; "
                f"set it (export {variable}=/a/folder), or write the path itself"
            )
        return os.environ[variable]

    if not text:
        raise ValueError("must be a path, but is empty")
    if "\0" in text:
        raise ValueError("must be a path, but has a NUL character")
    try:
        path = Path(_VARIABLE.sub(value_of, text)).expanduser()
    except RuntimeError as error:  # ~someone
        raise ValueError(str(error)) from error
    start = Path() if _VARIABLE.match(text) else folder
    # normpath, not resolve: links in the path stay as the user wrote them.
    return Path(os.path.normpath(start.absolute() / path))


def check_regular(path: Path) -> None:
    """Raises OSError where a file is missing, a folder, or a pipe or device, from which reading might never end."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file, but a pipe or a device", str(path))


def _from_text(value: object, *, folder: Path | None = None) -> object:
    # Plain text comes from a resolved recipe, in which paths are absolute, and is taken as it is.
    return expand(value, folder=folder or value.folder) if isinstance(value, PlacedText) else value


def _from_name(value: object) -> object:
    if not isinstance(value, str) or (value != STARTER.name and "://" not in value):
        return value
    try:
        return find_encoder(value)
    except CheckpointError as error:
        raise ValueError(str(error)) from error  # told with its line


RecipePath = Annotated[Path, BeforeValidator(_from_text)]
"""A path that is relative to the recipe file that it stands in."""

RecipeEncoderPath = Annotated[RecipePath, BeforeValidator(_from_name)]
"""A `RecipePath`, or the name `starter`, or an address (`find_encoder`)."""

RunPath = Annotated[Path, BeforeValidator(partial(_from_text, folder=Path())), AfterValidator(Path.absolute)]
"""A path that is relative to the current folder."""
