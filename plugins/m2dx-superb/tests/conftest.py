"""Data sets, and SoX, for the tests of m2dx-superb."""

import shutil
import sys
from pathlib import Path

import pytest
from m2dx_superb.sample import write_sample

PASS_THROUGH = """#!{python}
# Stands for SoX where it is not installed: gives the samples back.
import io, sys
import soundfile
wav, rate = soundfile.read(io.BytesIO(sys.stdin.buffer.read()), dtype="float32")
sys.stdout.buffer.write(wav.tobytes())
"""


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set of each task, and an encoder."""
    return write_sample(tmp_path_factory.mktemp("superb"))


@pytest.fixture
def stand_in_for_sox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program named sox on the PATH that changes nothing."""
    program = tmp_path / "bin" / "sox"
    program.parent.mkdir()
    program.write_text(PASS_THROUGH.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


@pytest.fixture
def sox(request: pytest.FixtureRequest) -> None:
    """SoX, or what stands in for it."""
    if shutil.which("sox") is None:
        request.getfixturevalue("stand_in_for_sox")
