"""Data on the page: what is recorded of each set, and what the page tells of it."""

import base64
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from report_pages import RECIPE, SUMMARY, page_of

from m2dx.contract.components import Clip
from m2dx.report.facts import without_folders
from m2dx.report.pictures import RunPictures
from m2dx.results.provenance import HEADERS, describe_data, describe_set, hours_of, list_fingerprint
from m2dx.results.run_folder import DataFacts, SetFacts


def test_each_set_and_the_noise_are_counted(tiny_recipe, host, sounds):
    recipe = tiny_recipe(
        f"data.sets.all={{dataset: {{name: csv, path: {sounds / 'drums.csv'}}}}}", noise=True
    )
    data = describe_data(recipe, host)
    lines = (sounds / "instrument.csv").read_text().splitlines()
    notes = data.sets["notes"]
    assert notes.clips == notes.labelled == sum(",train," in line for line in lines)
    assert notes.classes == 11 and notes.split == "train" and notes.missing == ()
    assert data.sets["all"].split is None
    assert data.noise.dataset == "csv" and data.noise.hours_from is None
    assert list(data.by_name) == ["notes", "all", "noise"]
    assert list(replace(data, sets={"noise": notes}).by_name) == ["noise", "noise_"]
    assert json.loads(json.dumps(asdict(data)))["sets"]["notes"]["hours"] == pytest.approx(notes.hours)


def test_images_have_no_hours(host, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    for number in range(3):
        path = tmp_path / "images" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image_module.new("RGB", (8, 8)).save(path)
    dataset = host.option_model("dataset", "image_folder")(name="image_folder", path=tmp_path / "images")
    facts = describe_set("pictures", dataset, None, host)
    assert facts.clips == 3 and facts.hours is None and facts.hours_from is None


def test_a_noise_source_and_a_list_that_is_gone_are_told(tiny_recipe, host, tmp_path):
    recipe = tiny_recipe("noise={ratio: 0.1, source: {name: coloured}}")
    assert describe_data(recipe, host).noise == SetFacts("noise", "coloured")
    folder = tmp_path / "gone"
    recipe = tiny_recipe(f"data.sets.notes={{dataset: {{name: folder, path: {folder}}}, split: null}}")
    facts = describe_data(recipe, host).sets["notes"]
    assert str(folder) in facts.error and facts.clips is None


def test_hours_are_counted_or_estimated_from_headers(make_wav):
    files = [make_wav(f"{number}.wav", seconds=1.0 + number) for number in range(2)]
    listed = [Clip(Path("not asked.wav"), duration=1800.0)]
    assert hours_of(listed) == (0.5, 1)
    hours, counted = hours_of([Clip(path) for path in files])
    assert hours == pytest.approx(3.0 / 3600) and counted == 2
    hours, counted = hours_of([Clip(files[1], start=0.5), *listed])
    assert hours == pytest.approx(1801.5 / 3600) and counted == 2
    assert hours_of([Clip(Path("gone.wav"))]) == (None, 0)
    many = [Clip(files[0])] * (2 * HEADERS)
    hours, counted = hours_of(many)
    assert hours == pytest.approx(2 * HEADERS / 3600) and counted == HEADERS


def test_a_fingerprint_of_clips_on_several_drives(monkeypatch):
    def fail(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr("os.path.commonpath", fail)
    clips = [Clip(Path("/a/1.wav")), Clip(Path("/b/2.wav"))]
    assert list_fingerprint(clips) == list_fingerprint(clips[::-1]) != list_fingerprint(clips[:1])


def test_a_fingerprint_is_of_names_places_and_labels_wherever_the_data_are():
    def clips(root="/a", **change):
        first = {"path": Path(root) / "x" / "1.wav", "labels": ("b", "a"), **change}
        return [Clip(**first), Clip(Path(root) / "y" / "2.wav", start=0.5, duration=1.0)]

    same = list_fingerprint(clips())
    assert len(same) == 12 and int(same, 16) >= 0
    assert list_fingerprint(clips("/somewhere/else")) == same
    assert list_fingerprint(clips()[::-1]) == same
    assert list_fingerprint(clips(split="train", weight=2.0, labels=("a", "b"))) == same
    changed = [clips(path=Path("/a/x/3.wav")), clips(start=0.1), clips(duration=2.0), clips(labels=("a",))]
    assert len({same, *(list_fingerprint(other) for other in changed)}) == 5
    assert list_fingerprint([]) != same


def test_the_page_tells_the_recorded_data(run):
    page = page_of(run)
    for text in ("aaaabbbbcccc", "100 labelled, 11 classes", "csv: …/pool.csv", "2 x", "1.25 h", "about 123"):
        assert text in page.text, text
    for text in ("-7.25", "4.5", "-6.5", "2.08 s", "16,000 Hz"):
        assert text in page.text, text
    assert "not recorded with the run" not in page.text.lower()


def test_folders_of_the_machine_are_not_told(run):
    (run / "recipe.yaml").write_text(RECIPE.replace("/data/", "/home/anna/data/"))
    (run / "bad_files.tsv").write_text(f"path\treason\n/home/anna/data/x/<1>.wav\tnone: {run}/log\n")
    summary = {**SUMMARY, "missing": ["/srv/secret/drums is not there"]}
    summary["launch"] = {**SUMMARY["launch"], "command": "m2dx train /home/me/small.yaml output=/srv/runs"}
    (run / "summary.json").write_text(json.dumps(summary))
    page = page_of(run, RunPictures(notes=["/home/me/a.wav: missing"]), data=None)
    (link,) = [a for a in page.all("a") if "download" in a]
    recipe = base64.b64decode(link["href"].partition(";base64,")[2]).decode()
    for text in (page.text, recipe):
        for folder in ("/home", "anna", "/srv", "/data/", str(run)):
            assert folder not in text, folder
        assert "pool.csv" in text
    for text in (
        "train small.yaml output=…/runs",
        "…/<1>.wav",
        "none: log",
        "…/drums is not there",
        "a.wav: missing",
    ):
        assert text in page.text, text


def test_the_lists_of_now_stand_in_where_none_were_recorded(run):
    (run / "summary.json").unlink()
    page = page_of(run, data=DataFacts({"pool": SetFacts("pool", "csv", error="no such <file>")}))
    assert "Not recorded with the run" in page.text
    assert "could not be listed: no such <file>" in page.text
    page = page_of(run)
    assert "csv: …/pool.csv" in page.text and "folder: …/noise" in page.text


def test_folders_of_windows_are_left_out_as_well():
    told = without_folders([])(
        r'C:\Users\me\a.wav, "D:\\data\\b.wav" and /home/me/c.wav of hf://x/y at 12:30'
    )
    assert told == '…/a.wav, "…/b.wav" and …/c.wav of hf://x/y at 12:30'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/work/runs/x: /work/a.wav", "runs/x: a.wav"),
        ("/mnt/work/a.wav of hf://user/name", "…/a.wav of hf://user/name"),
        ("/my study/b/c d.wav of '/my study/x.csv'", "b/c d.wav of 'x.csv'"),
        ("at /home/Jane Doe/patients/x.wav.", "at …/x.wav."),
        ("'/home/Jane Doe/patients/p 07/x.wav': none", "'…/x.wav': none"),
        ("/home/Jane Doe/other/y.wav and /home", "…/y.wav and /home"),
        ("path: /home/Jane\n    Doe/patients/list.csv", "path: …/list.csv"),
    ],
)
def test_folders_start_at_own_ones_and_may_have_spaces(text, told):
    known = ["/home/Jane Doe/patients", "/home/Jane Doe/patients/p 07/x.wav", "relative path/x"]
    assert without_folders(["/work", "/my study", "/"], known)(text) == told
