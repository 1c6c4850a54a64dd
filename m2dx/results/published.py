"""Published tables that installed packages bring, from the entry-point group `m2dx.tables`."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from m2dx.contract.errors import PluginError
from m2dx.contract.wording import problem_of
from m2dx.results.records import ResultRecord
from m2dx.results.table import ResultTable

logger = logging.getLogger(__name__)

TABLE_GROUP = "m2dx.tables"
"""Entry points of this group point to a mapping from a table's key (such as "m2d-x-iii") to a `PublishedTable`."""


class PublishedTable(Protocol):
    """A table of a paper."""

    def about(self) -> list[str]:
        """Lines for a list of tables: the source and title, and the names that its tasks have in recipes."""
        ...

    def beside(self, records: Sequence[ResultRecord], *, every: bool = False) -> ResultTable:
        """Its rows, and below them those of the records: the newest of each score, or `every` one."""
        ...


def published_tables() -> dict[str, PublishedTable]:
    """The tables of all installed packages, by key.

    Tables of a package that cannot be imported are warned of. Raises PluginError where two packages have one key.
    """
    tables: dict[str, PublishedTable] = {}
    for point in importlib.metadata.entry_points(group=TABLE_GROUP):
        where = f"the published tables {point.value} of {point.dist.name if point.dist else 'a package'}"
        try:
            found: Mapping[str, PublishedTable] = dict(point.load())
        except Exception as error:
            logger.warning("importing %s failed: %s", where, problem_of(error))
            continue
        if clash := sorted(tables.keys() & found.keys()):
            raise PluginError(
                f"{where} must have keys of their own, but another package has {', '.join(clash)}, too; "
                "uninstall one of the two"
            )
        tables |= found
    return tables
