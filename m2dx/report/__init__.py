"""The page of a run, and the figures on it."""

from m2dx.report.data_facts import describe_data
from m2dx.report.figures import MaskedExample, curves_figure, example_figure, loss_figure
from m2dx.report.page import write_report
from m2dx.report.pictures import RunPictures, draw_run
from m2dx.report.provenance import describe_software, describe_start

__all__ = [
    "MaskedExample",
    "RunPictures",
    "curves_figure",
    "describe_data",
    "describe_software",
    "describe_start",
    "draw_run",
    "example_figure",
    "loss_figure",
    "write_report",
]
