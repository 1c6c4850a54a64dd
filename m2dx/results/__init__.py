"""The file of results: a record per score, and tables of records.

The names below are public, for plugins that score outside a recipe, or bring published tables.
"""

from typing import TYPE_CHECKING

from m2dx.results.record_table import (
    PERCENT,
    EncoderKey,
    encoder_key,
    encoder_labels,
    left_out,
    newest,
    newest_first,
)
from m2dx.results.records import (
    RESULTS_FILE,
    Division,
    Protocol,
    ResultRecord,
    ScoredEncoder,
    append_records,
    read_records,
)
from m2dx.results.table import Cell, Group, Marks, ResultTable, Row

if TYPE_CHECKING:
    from m2dx.results.recording import fingerprint, package_versions

__all__ = [
    "PERCENT",
    "RESULTS_FILE",
    "Cell",
    "Division",
    "EncoderKey",
    "Group",
    "Marks",
    "Protocol",
    "ResultRecord",
    "ResultTable",
    "Row",
    "ScoredEncoder",
    "append_records",
    "encoder_key",
    "encoder_labels",
    "fingerprint",
    "left_out",
    "newest",
    "newest_first",
    "package_versions",
    "read_records",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'm2dx.results' has no attribute {name!r}")
    from m2dx.results import recording  # imports torch, which tables do without

    return getattr(recording, name)
