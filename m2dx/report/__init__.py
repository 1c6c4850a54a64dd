"""The page of a run, and the figures on it."""

from m2dx.report.figures import MaskedExample, curves_figure, example_figure, loss_figure
from m2dx.report.page import write_report

__all__ = ["MaskedExample", "curves_figure", "example_figure", "loss_figure", "write_report"]
