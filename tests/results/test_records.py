"""The file of results."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from result_records import ESC50, LUNGS

from m2dx.contract.errors import M2dxError
from m2dx.results.records import append_records, read_records


def test_records_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "results.jsonl"
    strange = replace(
        ESC50, encoder=replace(LUNGS, path="caf\udce9"), ci95=None, division=None, warnings=("a", "b")
    )
    append_records(path, [ESC50, strange])
    append_records(path, [])
    append_records(path, [ESC50])
    assert read_records([path.parent]).records == (ESC50, strange, ESC50)
    assert len(path.read_bytes().splitlines()) == 3


def test_lines_that_are_no_records_are_told_and_cost_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_records(path, [ESC50])
    good = json.loads(path.read_text())
    half = path.read_text()[:100]  # of a write that was cut off
    lines = ["", json.dumps({**good, "mean": "high"}), json.dumps({**good, "mean": float("nan")}), "[]", half]
    with path.open("a") as file:
        file.write("\n".join(lines))
    append_records(path, [ESC50])
    with path.open("ab") as binary:
        binary.write(b'"\xff"\n')
    found = read_records([path, path])
    assert found.records == (ESC50, ESC50)
    places = [f"{path}:{number}: " for number in (3, 4, 5, 6, 8)]
    assert [line.startswith(place) for line, place in zip(found.broken, places, strict=True)] == [True] * 5
    assert "mean: Input should be a valid number" in found.broken[0]
    assert "finite" in found.broken[1] and "not JSON" in found.broken[3]


def test_two_processes_append_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_records(path, [ESC50])
    code = (
        "import sys; from pathlib import Path; from m2dx.results.records import append_records, read_records\n"
        "path = Path(sys.argv[1]); records = read_records([path]).records[:1] * 5\n"
        "for _ in range(100): append_records(path, records)"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    found = read_records([path])
    assert len(found.records) == 1001 and found.broken == ()


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(M2dxError, match=r"there must be results in .*none\.jsonl"):
        read_records([tmp_path / "none.jsonl"])
    (tmp_path / "file").touch()
    with pytest.raises(M2dxError, match=r"cannot be appended to .*results\.jsonl"):
        append_records(tmp_path / "file" / "results.jsonl", [ESC50])
