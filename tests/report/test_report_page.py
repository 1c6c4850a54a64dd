"""The page of a run: what it shows, what it says about what is missing, and that it is safe and self-contained."""

import base64
import json
from itertools import pairwise

import pytest
from report_pages import SUMMARY, entry, masked_example, page_of, predictions, some_pictures, wavs, write_run

from m2dx.contract.components import Clip, Prediction
from m2dx.contract.errors import CheckpointError
from m2dx.report.page import write_report
from m2dx.report.pictures import RunPictures
from m2dx.results.predictions import write_predictions
from m2dx.results.run_folder import read_run
from m2dx.results.scores import write_scores


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of a run with all that a run leaves, and pictures."""
    return page_of(write_run(tmp_path_factory.mktemp("whole") / "small-run"), some_pictures())


LEFT_OUT = ("metrics.jsonl", "summary.json", "bad_files.tsv", "scores.json", "scores_by_step.jsonl")


def test_page_shows_everything_of_the_run(whole):
    page = whole
    for text in (
        "small-run",
        "14 November 2023",
        "60 of 80",
        "3,840",
        "1 min 15 s",
        "480 clips",
        "m2dx 0.1.0",
    ):
        assert text in page.text
    assert "2 RankMe measurements" in page.text
    assert "stopped by SIGTERM" in page.text
    assert "Missing from the data: <drums> is not there" in page.text
    assert "sounds/<b>.wav" in page.text and "empty & short" in page.text
    assert "# a < b & c" in page.text
    assert "80.0 ±\u00a01.0" in page.bold
    labels = [attrs["aria-label"] for attrs in page.all("svg")]
    starts = [
        "accuracy of instrument, knn",
        "Total loss",
        "M2D loss",
        "Task loss: labels",
        "RankMe",
        "Learning rate",
    ]
    assert [label.startswith(start) for label, start in zip(labels, starts, strict=False)] == [True] * 6
    assert [label.split(":")[1] for label in labels[6:12]] == [" a clip."] * 6
    assert [label[:17] for label in labels[12:]] == ["Log-mel of a clip"] * 3
    assert "3 at step 1, 0.05 at step 60" in labels[1]
    assert page.text.count("Step 1,000") == 2  # two clips
    for frequency in ("8k", "1k", "125"):
        assert page.text.count(frequency) >= 3
    assert page.text.count("2.08 s") >= 6  # below each picture


def test_the_result_is_first_the_facts_last_and_schedules_are_folded(run, sounds):
    scores = [entry(encoder, 0.8, predictions=items) for encoder, items in predictions(wavs(sounds)).items()]
    write_predictions(scores, run)
    write_scores(scores, run / "scores.json")
    page = page_of(run, some_pictures())
    assert [attrs["id"] for attrs in page.all("h2")] == [
        "result",
        "classes",
        "curves",
        "clips",
        "data",
        "facts",
    ]
    before, _, after = page.html.partition('id="curves"')
    shown, _, folded = after.partition("<details>")
    assert "Total loss" in shown and "Learning rate" not in before + shown and "Learning rate" in folded
    assert page.all("nav") and any(link["href"] == "#top" for link in page.all("a"))


def test_page_needs_nothing_from_elsewhere(whole):
    page = whole
    assert {"script", "iframe", "object", "embed", "base", "form"}.isdisjoint(
        name for name, _ in page.elements
    )
    assert len(page.addresses) > 15
    assert [address for address in page.addresses if not address.startswith(("data:", "#"))] == []
    assert "@import" not in page.html and "http-equiv" not in page.html
    assert "url(" not in page.html.replace("url(#", "")
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_everything_that_is_referred_to_is_there(whole):
    page = whole
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(page.referenced_ids) > 10
    assert set(page.referenced_ids) <= set(ids)
    own = [attrs["id"] for tag in ("h2", "h3", "section") for attrs in page.all(tag) if "id" in attrs]
    assert sorted(own) == sorted(set(own))
    links = [link["href"] for link in page.all("a") if "download" not in link]
    assert links == [*(f"#{heading['id']}" for heading in page.all("h2")), "#top"]


def test_headings_are_in_order_and_label_their_sections(whole):
    page = whole
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(name[1]) for name, _ in page.elements if name in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert max(after - before for before, after in pairwise(levels)) == 1
    ids = [attrs["id"] for attrs in page.all("h2")]
    assert [attrs["aria-labelledby"] for attrs in page.all("section")] == ids


def test_pictures_have_texts_and_can_be_decoded(whole):
    page = whole
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    images = page.all("image")
    assert len(images) == 10  # of six pictures, and of three views, one with a mask over it
    for image in images:
        assert float(image["width"]) > 0 and float(image["height"]) > 0
        kind, _, data = image["xlink:href"].partition(";base64,")
        assert kind == "data:image/png"
        assert base64.b64decode("".join(data.split()), validate=True).startswith(b"\x89PNG")


@pytest.mark.parametrize("pictures", [None, some_pictures()])
@pytest.mark.parametrize("missing", [(), LEFT_OUT])
def test_no_section_is_empty(run, pictures, missing):
    for name in missing:
        (run / name).unlink()
    sections = page_of(run, pictures).sections
    assert len(sections) == 5
    assert [text for text in sections if len(text) < 12] == []


def test_only_the_recipe_is_needed_and_each_missing_file_is_named(run):
    for name in LEFT_OUT:
        (run / name).unlink()
    page = page_of(run)
    for name in ("metrics.jsonl", "summary.json", "scores.json"):
        assert f"{name} is missing" in page.text
    assert "date not known" in page.text
    assert "No example clips" in page.text
    assert "The versions were not recorded" in page.text
    assert not page.all("svg")


def test_a_table_of_bad_files_that_is_lost_is_named(run):
    (run / "bad_files.tsv").unlink()
    assert "the summary counts 1 unusable files" in page_of(run).text
    (run / "summary.json").write_text(json.dumps({**SUMMARY, "bad_files": 0}))
    assert "none: every file that was read could be used" in page_of(run).text


def test_what_could_not_be_drawn_is_said(run):
    page = page_of(run, RunPictures(notes=["Clips cannot be shown: <gone>"]))
    assert "Clips cannot be shown: <gone>" in page.text
    assert "No example clips" not in page.text


def test_without_noise_the_clip_is_shown_once(run):
    page = page_of(run, RunPictures([masked_example(noise=0.0)]))
    views = [svg["aria-label"] for svg in page.all("svg") if "Log-mel" in svg["aria-label"]]
    assert [view.split(". ")[1][:7] for view in views] == ["Input.", "Visible"]


def test_a_folder_without_recipe_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"recipe\.yaml"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "metrics.jsonl",
            '{"step": 1, "loss": 2.0}\n{"step": 2, "lo',
            "cannot be read, and are not shown: 1",
        ),
        ("metrics.jsonl", "", "metrics.jsonl is empty"),
        ("metrics.jsonl", '{"step": 1}\n', "metrics.jsonl holds no losses"),
        ("summary.json", "{", "must be a summary written by m2dx, but cannot be read"),
        ("summary.json", "[1]", "must be a summary written by m2dx, but cannot be read"),
        ("summary.json", '{"steps": 3}', "must be a summary written by m2dx, but cannot be read"),
        ("summary.json", '{"data": [], "versions": 3, "commits": "x"}', "The versions were not recorded"),
        ("scores.json", '[{"encoder": "x"}]', "must be scores written by m2dx"),
        ("scores.json", "[]", "names no evaluation"),
        ("scores_by_step.jsonl", "{", "cannot be read, and are not shown: 1"),
        ("predictions.jsonl", "{", "cannot be read, and are not shown: 1"),
        ("recipe.yaml", "a: [", "The recipe does not tell the data"),
    ],
)
def test_a_broken_file_is_named_and_the_rest_shown(run, name, content, told):
    (run / name).write_text(content)
    if name == "recipe.yaml":
        (run / "summary.json").unlink()
    page = page_of(run)
    assert told in page.text
    assert "sounds/<b>.wav" in page.text


@pytest.mark.parametrize("time", ["1e30", "NaN", "-1e15"])
def test_a_time_that_is_none_is_not_known(run, time):
    (run / "metrics.jsonl").write_text(f'{{"step": 1, "loss": 2.0, "time": {time}}}\n')
    assert "date not known" in page_of(run).text


def test_bad_files_are_listed_up_to_fifty(run):
    rows = "".join(f"clip{number:03}.wav\tNaN\n" for number in range(60))
    (run / "bad_files.tsv").write_text(f"path\treason\n{rows}sounds/<b>.wav\tempty & short\n")
    page = page_of(run)
    assert page.text.count("sounds/<b>.wav") == 0  # the 61st
    assert "clip049.wav" in page.text and "clip050.wav" not in page.text
    assert "The first 50 of 61; all are in bad_files.tsv" in page.text


def test_no_bad_files_is_said(run):
    (run / "bad_files.tsv").write_text("path\treason\n")
    assert "none: every file that was read could be used" in page_of(run).text


def test_all_text_is_escaped(run):
    evil = "<script>alert('$x$')</script>"
    write_scores([entry(evil, 0.5, task=evil, protocol=evil)], run / "scores.json")
    (run / "recipe.yaml").write_text(
        f'name: "{evil}"\ntasks: {{"{evil}": {{}}}}\ndata: {{sets: {{"{evil}": 1}}}}\n'
    )
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, f"loss_{evil}": 1.0}) + "\n")
    strange = {
        **SUMMARY,
        "stopped_by": evil,
        "device": evil,
        "missing": [evil],
        "software": {"versions": {"m2dx": evil, evil: evil}, "commits": {evil: evil}},
        "launch": {"folder": evil, "machine": evil, "command": evil, "gpus": evil},
    }
    (run / "summary.json").write_text(json.dumps(strange))
    (run / "bad_files.tsv").write_text(f"path\treason\n{evil}\t{evil}\n")
    step = {"step": 1, "task": evil, "protocol": evil, "metric": evil, "mean": 0.5}
    (run / "scores_by_step.jsonl").write_text(json.dumps(step) + "\n")
    clips = [Clip(run / evil, 0.0, 1.0, (label,)) for label in ("a", evil)]
    told = [Prediction(clip, evil, 0.5) for clip in clips]
    scores = [entry("pretrained", 0.5, task=evil, protocol=evil, predictions=told)]
    write_predictions(scores, run)
    write_scores(scores, run / "scores.json")
    page = page_of(run, some_pictures(evil))
    assert not page.all("script")
    assert page.text.count("alert('$x$')") >= 20
    assert sum("alert('$x$')" in attrs["aria-label"] for attrs in page.all("svg")) >= 10


@pytest.mark.parametrize(
    "name, harm",
    [
        ("bad_files.tsv", "path\treason\n" + "x" * 200_000 + "\ttoo long\n"),
        ("bad_files.tsv", None),
        ("metrics.jsonl", None),
        ("metrics.jsonl", "[" * 100_000),
        ("metrics.jsonl", '{"step": %s}' % ("9" * 400)),
        ("scores_by_step.jsonl", None),
        ("scores_by_step.jsonl", "[" * 100_000),
        ("predictions.jsonl", None),
        ("predictions.jsonl", "[" * 100_000),
        ("scores.json", None),
        ("summary.json", None),
    ],
)
def test_a_page_is_written_whatever_lies_in_the_run_s_folder(run, name, harm):
    """A folder (None) or odd text in the place of a file; the page's notes name it."""
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir() if harm is None else (run / name).write_text(harm)
    found = read_run(run)
    assert name in found.notes or (name in ("scores_by_step.jsonl", "predictions.jsonl") and harm is None)
    assert page_of(run).text
