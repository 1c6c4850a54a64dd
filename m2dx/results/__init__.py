"""The file of results: a record per score, and tables of records.

The names below are public, for plugins that score outside a recipe, or bring published tables. They come without torch,
so that tables of results come at once.
"""

from m2dx.results.records import RESULTS_FILE as RESULTS_FILE
from m2dx.results.records import Division as Division
from m2dx.results.records import EncoderKey as EncoderKey
from m2dx.results.records import Protocol as Protocol
from m2dx.results.records import ResultRecord as ResultRecord
from m2dx.results.records import ScoredEncoder as ScoredEncoder
from m2dx.results.records import append_records as append_records
from m2dx.results.records import encoder_key as encoder_key
from m2dx.results.records import encoder_labels as encoder_labels
from m2dx.results.records import fingerprint as fingerprint
from m2dx.results.records import left_out as left_out
from m2dx.results.records import newest as newest
from m2dx.results.records import newest_first as newest_first
from m2dx.results.records import package_versions as package_versions
from m2dx.results.records import read_records as read_records
from m2dx.results.table import PERCENT as PERCENT
from m2dx.results.table import Cell as Cell
from m2dx.results.table import Group as Group
from m2dx.results.table import Marks as Marks
from m2dx.results.table import ResultTable as ResultTable
from m2dx.results.table import Row as Row
