"""A run's folder for the tests of the page."""

import pytest
from report_pages import write_run


@pytest.fixture
def run(tmp_path):
    """A folder with all that a run leaves."""
    return write_run(tmp_path / "small-run")
