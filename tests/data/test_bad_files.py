"""The ledger of bad files: each reported once, too many stop the run."""

from pathlib import Path

import pytest

from m2dx.contract.errors import TrainingError
from m2dx.data.bad_files import BadFiles


def pairs(count: int) -> list[tuple[str, str]]:
    return [(f"{i:03}.wav", "missing") for i in range(count)]


def test_each_file_is_new_once() -> None:
    bad = BadFiles(100, max_bad_fraction=0.05)
    assert bad.add([*pairs(2), ("000.wav", "empty")]) == pairs(2)
    assert bad.add(pairs(3)) == [("002.wav", "missing")]
    assert len(bad) == 3


def test_too_many_stop_the_run_with_a_list() -> None:
    bad = BadFiles(1000, max_bad_fraction=0.05)
    bad.add(pairs(50))
    bad.check()
    bad.add(pairs(51))
    with pytest.raises(TrainingError, match=r"at most 5\.0% of the 1000 files .* but 51 are") as caught:
        bad.check()
    lines = str(caught.value).splitlines()
    assert lines[1] == "  000.wav: missing"
    assert lines[-1] == "  and 31 more"
    assert len(lines) == 22


def test_none_allowed() -> None:
    bad = BadFiles(10, max_bad_fraction=0.0)
    bad.check()
    bad.add(pairs(1))
    with pytest.raises(TrainingError):
        bad.check()


def test_table(tmp_path: Path) -> None:
    bad = BadFiles(10, max_bad_fraction=1.0)
    bad.write(tmp_path / "bad_files.tsv")
    assert (tmp_path / "bad_files.tsv").read_text() == "path\treason\n"
    bad.add([("b.wav", "empty"), ("a\udce9.wav", "missing")])
    bad.write(tmp_path / "bad_files.tsv")
    assert (tmp_path / "bad_files.tsv").read_bytes() == b"path\treason\na\xe9.wav\tmissing\nb.wav\tempty\n"


def test_a_resumed_run_does_not_report_again() -> None:
    bad, resumed = BadFiles(10, max_bad_fraction=1.0), BadFiles(10, max_bad_fraction=1.0)
    bad.add(pairs(2))
    resumed.load_state_dict(bad.state_dict())
    assert resumed.add(pairs(3)) == [("002.wav", "missing")]
