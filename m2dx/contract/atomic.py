"""Files that a kill or a full disk cannot cut: a reader finds the old content or the new one, whole.

Whatever m2dx writes for later is written here, aside and under another name first; only the rename makes it visible.
Lines that are appended (metrics, results) are the exception: their readers skip a line that was cut off.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

Writer = Callable[[BinaryIO], object]
"""Writes the content of a file to it."""


def replace_file(path: Path, write: Writer, *, shared: bool = False) -> None:
    """Gives `path` the content that `write` writes, at once: written aside, synced, renamed.

    The folder is made where it is missing; the file's rights follow the umask. `shared`: other processes may write the
    same file at the same time. Raises OSError where the disk refuses it; the old content stays.
    """
    replace_files(path.parent, {path.name: write}, suffix=f".{os.getpid()}.partial" if shared else ".partial")


def replace_files(folder: Path, files: Mapping[str, Writer], *, suffix: str = ".partial") -> None:
    """Gives a folder several files that belong together, by name; other files of it stay.

    All are written aside before the first has its name, and the last, removed first, has its name only with all the
    others: whoever finds it never reads the files of two times. Raises OSError where the disk refuses to write them,
    with all of the old content still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partials = {folder / f".{name}{suffix}": folder / name for name in files}
    try:
        for partial, write in zip(partials, files.values(), strict=True):
            _write_synced(partial, write)
        if len(files) > 1:
            (folder / list(files)[-1]).unlink(missing_ok=True)
        for partial, path in partials.items():
            os.replace(partial, path)
    except BaseException:
        for partial in partials:
            with contextlib.suppress(OSError):
                partial.unlink()  # it would take the space that may be lacking
        raise
    _sync_folder(folder)


def _write_synced(path: Path, write: Writer) -> None:
    disk = _Disk(path, "wb")
    try:
        with io.BufferedWriter(disk) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        if disk.error is not None:  # torch.save makes a RuntimeError without a reason of it
            raise disk.error from error
        raise


class _Disk(io.FileIO):
    """A file that remembers why the disk refused to write."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = error.filename or self.name
            self.error = error
            raise


def replace_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Gives `path` a text in UTF-8, at once, as `replace_file` does; `errors` as in `open`."""
    content = text.encode("utf-8", errors)
    replace_file(path, lambda file: file.write(content))


def replace_json(path: Path, content: object) -> None:
    """Gives `path` a value as indented JSON, at once, as `replace_file` does."""
    replace_text(path, json.dumps(content, indent=1) + "\n")


def _sync_folder(folder: Path) -> None:
    """Keeps a rename also where the power fails; Windows cannot open a folder for it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
