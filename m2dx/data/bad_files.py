"""The ledger of files that could not be used."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from m2dx.contract.atomic import replace_text
from m2dx.contract.errors import TrainingError

BadFile = tuple[str, str]
"""Path of a file that could not be used, and the reason."""
_MOST_SHOWN = 20


class BadFiles:
    """Files that could not be used, each once with its reason, and the limit to their share.

    `num_files` is how many distinct files there are, `max_bad_fraction` the share of bad ones that stops a run.
    """

    def __init__(self, num_files: int, *, max_bad_fraction: float) -> None:
        self.num_files = num_files
        self.max_bad_fraction = max_bad_fraction
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, found: Iterable[BadFile]) -> list[BadFile]:
        """Notes the files; gives those that were not known yet, to be reported."""
        new = []
        for path, reason in found:
            if path not in self._reasons:
                self._reasons[path] = reason
                new.append((path, reason))
        return new

    def check(self) -> None:
        """Raises `TrainingError` with a list when more than `max_bad_fraction` of the files are bad."""
        if len(self) <= self.max_bad_fraction * self.num_files:
            return
        shown = [f"  {path}: {reason}" for path, reason in list(self._reasons.items())[:_MOST_SHOWN]]
        if len(self) > _MOST_SHOWN:
            shown.append(f"  and {len(self) - _MOST_SHOWN} more")
        raise TrainingError(
            f"at most {self.max_bad_fraction:.1%} of the {self.num_files} files may be unusable "
            f"(data.max_bad_fraction), but {len(self)} are; mend or remove them:\n" + "\n".join(shown)
        )

    def write(self, path: Path) -> None:
        """A table of path and reason, separated by tabs; only the header when there are none."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerow(("path", "reason"))
        writer.writerows(sorted(self._reasons.items()))
        replace_text(path, text.getvalue(), errors="surrogateescape")

    def state_dict(self) -> dict[str, str]:
        """Reason by path, for a checkpoint."""
        return dict(self._reasons)

    def load_state_dict(self, state: dict[str, str]) -> None:
        """Goes on from a checkpoint, so that a resumed run does not report the same files again."""
        self._reasons = dict(state)
