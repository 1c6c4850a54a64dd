"""Errors that the command line prints without a traceback: what must hold, what it is, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from m2dx.contract.wording import problem_of


class M2dxError(Exception):
    """Base of every error that is the user's to mend (a recipe, a file, a plugin), not a bug of m2dx."""

    @classmethod
    @contextmanager
    def blaming(cls, what: str) -> Iterator[None]:
        """Inside, an error that is not m2dx's own becomes this one, in a line that begins with `what`.

        SystemExit, too: a plugin is not to end the process with its text alone.
        """
        try:
            yield
        except M2dxError:
            raise
        except (Exception, SystemExit) as error:
            raise cls(f"{what}: {problem_of(error)}") from error


class RecipeError(M2dxError):
    """A recipe that cannot be run; its text lists every problem found, each with `file:line`."""


class PluginError(M2dxError):
    """A plugin that failed to load, breaks the component contract, or clashes with another one."""


class AudioError(M2dxError):
    """Audio that cannot be used; for a single file, its text is the reason without the path."""


class ImageError(M2dxError):
    """An image that cannot be used; for a single file, its text is the reason without the path."""


class CheckpointError(M2dxError):
    """A checkpoint or an export that is missing, corrupt, or does not fit the recipe."""


class TrainingError(M2dxError):
    """A run that had to stop: a loss that is not finite, or too many bad files."""


class MemoryShortageError(M2dxError):
    """Memory of the device or the machine that ran out, or would; its text says what to set."""
