"""The feed benchmark at its smallest: what it reads, and what it writes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PAGE = "before\n\n<!-- feed-benchmark: begin -->\nold\n<!-- feed-benchmark: end -->\n\nafter\n"


@pytest.fixture(scope="module")
def feed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import feed

        yield feed
    for name in ("feed", "feed_tables", "step", "step_measures", "step_tables"):
        sys.modules.pop(name, None)


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    (tmp_path / "sounds").mkdir()
    wav = 0.2 * np.random.default_rng(0).standard_normal(40_000)
    soundfile.write(tmp_path / "sounds" / "a.wav", wav, 16_000, subtype="FLOAT")
    given = f"--sounds {tmp_path / 'sounds'} --folder {tmp_path / 'clips'} --clips 8 --seconds 0.5 --crop-seconds 0.3"
    return [*given.split(), "--batch", "4", "--batches", "1", "--repeats", "2"]


def test_each_format_is_measured_on_the_same_clips(feed, options: list[str], tmp_path: Path) -> None:
    threads, page = torch.get_num_threads(), tmp_path / "page.md"
    page.write_text(PAGE)
    try:
        more = ["--workers", "0", "--samples", "int16,float32", "--noise", "--cold"]
        assert feed.main([*options, *more, "--json", str(tmp_path / "out.json"), "--write", str(page)]) == 0
    finally:
        torch.set_num_threads(threads)
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [(r["form"], r["samples"]) for r in results] == [
        (form, samples) for form in feed.FORMATS for samples in ("int16", "float32")
    ]
    for result in results:
        halved = result["samples"] == "int16" and result["form"] != "ogg"
        assert result["sample_bytes_per_clip"] == 2 * 4800 * (2 if halved else 4)
        assert len(result["clips_per_second"]["samples"]) == 2
        assert result["clips_per_core_second"]["median"] > 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| packed-flac |") == 2


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--formats", "mp3"], "--formats must be of wav, flac"),
        (["--samples", "int8"], "--samples must be of int16, float32"),
        (["--workers", "two"], "--workers must be numbers"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--write", "none.md"], "must be a page with the lines"),
    ],
)
def test_wrong_options_are_refused(
    feed, wrong: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        feed.main(wrong)
    assert reason in capsys.readouterr().err


def test_a_folder_without_recordings_is_refused(feed, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert feed.main(["--sounds", str(tmp_path / "empty"), "--folder", str(tmp_path / "out")]) == 1
    assert "--sounds must have audio files" in capsys.readouterr().err
