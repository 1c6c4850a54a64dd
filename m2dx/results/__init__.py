"""The file of results: a record per score, and tables of records.

The names below are public, for plugins that score outside a recipe, or bring published tables. They come without torch,
so that tables of results come at once.
"""

from m2dx.results.records import (
    RESULTS_FILE,
    Division,
    EncoderKey,
    Protocol,
    ResultRecord,
    ScoredEncoder,
    append_records,
    encoder_key,
    encoder_labels,
    fingerprint,
    left_out,
    newest,
    newest_first,
    package_versions,
    read_records,
)
from m2dx.results.table import PERCENT, Cell, Group, Marks, ResultTable, Row

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
