"""The tables of the papers, which `m2dx results --table KEY` sets beside one's own records."""

from m2dx_tasks.papers.comparison import Comparison
from m2dx_tasks.papers.published import table_keys

__all__ = ["TABLES"]

TABLES = {key: Comparison(key) for key in table_keys()}
"""The value of the plugin's entry point in the group `m2dx.tables`."""
