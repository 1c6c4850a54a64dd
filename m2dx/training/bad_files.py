"""Unusable files that the processes of a run find, in one ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from m2dx.data.bad_files import BadFile, BadFiles
from m2dx.training.distributed import Processes

logger = logging.getLogger(__name__)


class SharedBadFiles:
    """The same ledger in every process; the main one warns of new files and writes the table."""

    def __init__(self, ledger: BadFiles, processes: Processes, table: Path) -> None:
        self.ledger, self.processes, self.table = ledger, processes, table
        self._found: list[BadFile] = []  # in this process, since the processes last told each other

    def note(self, bad: Iterable[BadFile]) -> None:
        """Keeps what this process found, until the next `share`."""
        self._found += bad

    def share(self) -> None:
        """Brings what the processes found since the last call into every ledger; all have to call it."""
        found, self._found = self.processes.gather(self._found), []
        self.report(entry for entries in found for entry in entries)

    def report(self, bad: Iterable[BadFile]) -> None:
        """Warns of files, known to every process, that are new; TrainingError where there are too many by now."""
        new = self.ledger.add(bad)
        if not new:
            return
        if self.processes.is_main:
            for path, reason in new:
                logger.warning("cannot use %s: %s", path, reason)
            self.ledger.write(self.table)
        self.ledger.check()
