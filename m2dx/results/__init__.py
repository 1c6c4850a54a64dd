"""The file of results: a record per score, the papers' tables, and both side by side.

The names below are public, for plugins that score outside a recipe.
"""

from typing import TYPE_CHECKING

from m2dx.results.records import (
    RESULTS_FILE,
    Division,
    Protocol,
    ResultRecord,
    ScoredEncoder,
    append_records,
    read_records,
)

if TYPE_CHECKING:
    from m2dx.results.recording import fingerprint, package_versions

__all__ = [
    "RESULTS_FILE",
    "Division",
    "Protocol",
    "ResultRecord",
    "ScoredEncoder",
    "append_records",
    "fingerprint",
    "package_versions",
    "read_records",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'm2dx.results' has no attribute {name!r}")
    from m2dx.results import recording  # imports torch, which tables do without

    return getattr(recording, name)
