"""An export goes to the Hub with its card, and comes back by name and commit; what cannot be is told in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub, serving
from huggingface_hub import ModelCard, constants, get_session
from m2dx_hub import repository
from m2dx_hub.card import Stated, card_of, run_of
from typer.testing import CliRunner

import m2dx
from m2dx.cli import app
from m2dx.contract.components import Score
from m2dx.contract.package import find_encoder
from m2dx.encoder.weights import EXPORT_MAPPERS, read_weights, write_export
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.results.run_folder import DataFacts, SetFacts
from m2dx.results.scores import write_scores
from m2dx.testing.samples import write_encoder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that huggingface_hub asks, with a token that may write, and a cache of its own."""
    with serving() as served:
        for name, value in {
            "ENDPOINT": served.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_ASSETS_CACHE": str(tmp_path / "assets"),
            "HF_HUB_CACHE": str(tmp_path / "hub"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "hf_writes")
        yield served


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("exports") / "encoder", width=64, heads=1)


@pytest.fixture
def export(made: Path, tmp_path: Path) -> Path:
    """An export with a licence, and beside it a file that is no part of it."""
    folder = shutil.copytree(made, tmp_path / "run" / "encoder")
    (folder / "licences").mkdir()
    (folder / "licences" / "data").write_text("CC BY 4.0")
    (folder / "evil.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def load(tmp_path: Path, host: m2dx.PluginHost) -> Callable[[str], Recipe]:
    """Loads a recipe with one override."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {sets: {tones: {dataset: {name: folder, path: tones}}}}\n")
    return lambda override: load_recipe(recipe, [override], host=host)


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["push", *map(str, words)])


def test_it_goes_and_comes_back(hub: Hub, export: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights, mappers = read_weights(export), {"captions.linear.weight": torch.ones(2, 3)}
    write_export(export, weights.encoder(), weights.config, mappers=mappers)
    result = invoke(export, "hf://me/lungs", "--licence", "cc-by-4.0")
    assert result.exit_code == 0, result.output
    commit, files = hub.find("me/lungs", "main") or ("", {})
    assert f"encoder: hf://me/lungs@{commit}" in result.output
    names = {"config.json", "model.safetensors", "golden.safetensors", "README.md", "licences/data"}
    names |= {EXPORT_MAPPERS}
    assert files.keys() == names | {".gitattributes"}
    hub.repos["me/lungs"][commit] |= {"evil.py": b"raise SystemExit", "pytorch_model.bin": b"\x80"}
    hub.asked.clear()
    encoder, wav = m2dx.load_encoder("hf://me/lungs"), torch.randn(16_000)
    assert f"hf://me/lungs is hf://me/lungs@{commit}" in caplog.text
    assert torch.equal(encoder(wav), m2dx.load_encoder(export)(wav))
    assert encoder.mappers.keys() == mappers.keys()
    folder = find_encoder(f"hf://me/lungs@{commit}")
    assert folder.name == f"me--lungs@{commit[:12]}"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == names
    assert not any("evil" in asked or ".bin" in asked for asked in hub.asked)
    hub.asked.clear()
    m2dx.load_encoder(f"hf://me/lungs@{commit}")
    assert hub.asked == []


def test_a_second_push_leaves_nothing_of_the_first(hub: Hub, export: Path) -> None:
    (export / "model.onnx").write_bytes(b"old")
    first = invoke(export, "hf://me/lungs")
    (export / "model.onnx").unlink()
    (export / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    second = invoke(export, "hf://me/lungs")
    assert first.exit_code == second.exit_code == 0 and "as it is" in second.output
    old, new = list(hub.repos["me/lungs"].values())[-2:]
    assert "model.onnx" in old and "model.onnx" not in new and b"mine" in new["README.md"]


def test_a_card_of_other_weights_is_not_pushed(hub: Hub, export: Path) -> None:
    assert invoke(export, "hf://me/lungs").exit_code == 0
    card, config = export / "README.md", json.loads((export / "config.json").read_text())
    card.write_text(card.read_text().replace(config["sha256"], "0" * 64))
    refused = invoke(export, "hf://me/lungs")
    assert refused.exit_code != 0 and "has the SHA-256 of another one" in str(refused.exception)


@pytest.mark.parametrize("where", ["init_from", "baselines", "command"])
def test_it_stands_wherever_an_encoder_may(
    hub: Hub, export: Path, where: str, load: Callable[[str], Recipe], tmp_path: Path
) -> None:
    commit = hub.commit("me/lungs", {path.name: path.read_bytes() for path in export.glob("*.*")})
    address = f"hf://me/lungs@{commit}"
    folder = Path(constants.HF_ASSETS_CACHE, "m2dx", f"me--lungs@{commit[:12]}")
    if where == "init_from":
        assert load(f"init_from={address}").init_from == folder
    elif where == "baselines":
        assert load(f"evaluation.baselines=[{address}]").evaluation.baselines == (folder,)
    else:
        done = CliRunner().invoke(app, ["export", address, str(tmp_path / "out")])
        assert done.exit_code == 0 and (tmp_path / "out" / "config.json").exists(), done.output
    assert (folder / "config.json").is_file()


ADDRESSES = {
    "hf://me": "must be hf://user/name",
    "hf://me/a/b": "must be hf://user/name",
    "hf://me/../etc": "must be hf://user/name",
    "hf://me/none": "no such repository, or it is private",
    "hf://me/none@" + 40 * "a": "no such repository, or it is private",
    "hf://me/lungs@v2": "no such revision",
    "hf://me/lungs@" + 40 * "b": "no such revision",
    "hf://me/other": r"not an export of m2dx: it has no config\.json and no model\.safetensors",
    "hf://me/gated": "accept its terms",
    "s3://me/lungs": r"s3:// needs a package that finds encoders there; m2dx-hub does for hf://",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_cannot_be_fetched(hub: Hub, export: Path, address: str, load: Callable[[str], Recipe]) -> None:
    hub.commit("me/lungs", {path.name: path.read_bytes() for path in export.glob("*.*")})
    hub.commit("me/other", {"pytorch_model.bin": b"", "README.md": b"x"})
    hub.commit("me/gated", {"config.json": b"{}"})
    hub.gated.add("me/gated")
    with pytest.raises(m2dx.CheckpointError, match=ADDRESSES[address]) as told:
        m2dx.load_encoder(address)
    assert str(told.value).startswith(address) and "\n" not in str(told.value)
    with pytest.raises(m2dx.RecipeError, match=rf"init_from.*{ADDRESSES[address]}"):
        load(f"init_from={address}")
    assert not list(Path(constants.HF_ASSETS_CACHE).glob("m2dx/*@*/"))


def test_scores_are_of_the_same_weights(export: Path, tmp_path: Path) -> None:
    """Of an export, of a copy, and of a classifier on it, but not of another encoder in the run's folder."""
    run, weights = export.parent, read_weights(export)
    score = Score("drums", "accuracy", 0.62, None, (0.62,), "knn", encoder="pretrained")
    write_scores([score], run / "scores.json")
    (run / "summary.json").write_text("{}")  # which other weights don't need
    other = write_encoder(run / "other", width=64, heads=1, seed=1)
    copy = shutil.copytree(export, tmp_path / "copies" / "lungs")
    write_export(run / "fitted", weights.encoder(), weights.config, {"linear.weight": torch.ones(2, 320)})
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored" / "encoder.txt").write_text(f"{copy}\n")
    gone = tmp_path / "gone"
    gone.mkdir()
    (gone / "encoder.txt").write_text(f"{tmp_path / 'nowhere'}\n")
    for place, given, expected in (
        (export, None, run),
        (run / "fitted", None, run),
        (run / "fitted", run, run),
        (copy, run, run),
        (export, tmp_path / "scored", tmp_path / "scored"),
        (other, None, None),
        (copy, None, None),
    ):
        assert run_of(place, given) == expected
    for place, given, what in (
        (other, run, "encoder"),
        (export, gone, "nowhere"),
        (export, other, "no encoder"),
    ):
        with pytest.raises(
            m2dx.RecipeError, match=rf"--run must be .*, but {given} has those of .*{what}; leave"
        ):
            run_of(place, given)
    done = invoke(other, "hf://me/lungs", "--card-only")
    assert done.exit_code == 0 and "None were measured" in (other / "README.md").read_text(), done.exception


@pytest.mark.parametrize(("folder", "name"), [("run", "."), ("run/encoder", "."), ("run/encoder", "..")])
def test_the_run_is_found_from_inside(
    export: Path, folder: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scores(
        [Score("drums", "accuracy", 0.62, None, (0.62,), "knn", encoder="pretrained")],
        export.parent / "scores.json",
    )
    monkeypatch.chdir(export.parents[1] / folder)
    assert invoke(name, "hf://me/lungs", "--card-only").exit_code == 0
    assert "| drums |" in (export / "README.md").read_text()


def test_a_damaged_export_is_not_taken(hub: Hub, export: Path) -> None:
    files = {path.name: path.read_bytes() for path in export.glob("*.*")}
    files["config.json"] = files["config.json"].replace(b'"mean": -7.0', b'"mean": -6.0')
    commit = hub.commit("me/lungs", files)
    with pytest.raises(m2dx.CheckpointError, match="golden"):
        m2dx.load_encoder(f"hf://me/lungs@{commit}")


@pytest.mark.parametrize("way", ["offline", "refused"])
def test_without_a_network(hub: Hub, export: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched by its commit loads; anything else is refused within seconds."""
    commit = hub.commit("me/lungs", {path.name: path.read_bytes() for path in export.glob("*.*")})
    find_encoder(f"hf://me/lungs@{commit}")
    if way == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    get_session()
    m2dx.load_encoder(f"hf://me/lungs@{commit}")
    for address in ("hf://me/lungs", "hf://me/lungs@" + 40 * "c"):
        with pytest.raises(m2dx.CheckpointError, match="must be reached, but is not") as told:
            m2dx.load_encoder(address)
        assert "\n" not in str(told.value)


def test_what_is_not_pushed(hub: Hub, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = shutil.copytree(export, tmp_path / "damaged")
    (damaged / "golden.safetensors").unlink()
    for words, message in (
        ((tmp_path, "hf://me/lungs"), "must be an export, or the folder of a run"),
        ((tmp_path / "none", "hf://me/lungs"), "must be an export, or the folder of a run"),
        ((damaged, "hf://me/lungs"), "must have golden"),
        ((export, "me/lungs"), "must be hf://user/name"),
        ((export, "hf://me/lungs@main"), "a push makes a new commit"),
        ((export, "hf://other/lungs"), "the token must be allowed"),
    ):
        error = invoke(*words).exception
        assert isinstance(error, m2dx.CheckpointError) and message in str(error) and "\n" not in str(error)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(repository, "get_token", lambda: None)
    error = invoke(export, "hf://me/lungs").exception
    assert isinstance(error, m2dx.CheckpointError) and "needs a token" in str(error)
    assert hub.repos == {} and invoke(export, "hf://me/lungs", "--card-only").exit_code == 0


def test_the_card_says_what_the_run_was(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = export.parent, json.loads((export / "config.json").read_text())
    config["recipe"] = {
        "name": "lungs", "init_from": "start.pth", "model": {"size": "tiny"}, "sha256": "abc",
        "clips": {"count": 1112, "fingerprint": "481992d0"},
    }  # fmt: skip
    (export / "config.json").write_text(json.dumps(config | {"step": 1888}))
    scores = [
        Score("drums", "accuracy", mean, ci, (mean,), "knn", encoder=name)
        for name, mean, ci in (("pretrained", 0.62, 0.05), ("mean_logmel", 0.5, None))
    ]
    write_scores(scores, run / "scores.json")
    sets = {"pool": SetFacts("pool", "csv", clips=1112, hours=0.73, fingerprint="f00")}
    sets["more"] = SetFacts("more", "csv", clips=12_345, hours=10_000.4, labelled=999, classes=5)
    summary = type("Summary", (), {"data": DataFacts(sets)})
    monkeypatch.setattr("m2dx_hub.card.read_summary", lambda folder: summary if folder == run else None)
    text = card_of(export, run, "me/lungs", Stated("cc-by-4.0", "CC BY 4.0", untested="Not on children."))
    for part in (
        'm2dx.load_encoder("hf://me/lungs")', "(B, T, 320)", "1,888 steps", "1,112 clips, list 481992d0",
        "| pool | 1,112 | 0.73 | - | - | f00 |", "| more | 12,345 | 10,000 | 999 | 5 | - |",
        "Licence of the data: CC BY 4.0", "started from start.pth",
        "not stated by who pushed it", "| drums | knn | accuracy | 62.0 ± 5.0 | 50.0 |", "ahead of every baseline",
        "Anything but drums.", "nothing above 8000 Hz", "Not on children.", "size: tiny",
    ):  # fmt: skip
        assert part in text, part
    data = ModelCard(text).data.to_dict()
    assert data["license"] == "cc-by-4.0" and data["pipeline_tag"] == "feature-extraction"
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.62
    write_scores([replace(score, details={"taught": True}) for score in scores], run / "scores.json")
    learnt = card_of(export, run, "me/lungs", Stated())
    assert "model-index" not in learnt and "| 62.0 ± 5.0 (learnt) |" in learnt
    assert "None were measured" in card_of(export, export, "me/lungs", Stated())


CARDS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "without scores": (
        {},
        ["None were measured", "not tested on any task", "encoder.clip(wav)", "log-mel statistics",
         "pipeline_tag: feature-extraction"],
        ["model-index", "In percent", "## Labels", "images", "masked-modeling-duo", "ahead of"],
    ),
    "images": (
        {"audio": None, "scores": True},
        ["An encoder of images", "m2dx.load_image_encoder(", "(B, 3, 32, 48), uint8", "-> (B, 2, 3, 64)",
         "32 x 48 pixels", "pipeline_tag: image-feature-extraction", "7 images, list f1",
         "| pool | 1,112 | - | - | f00 |", "labelled images of your own.", "type: image-classification"],
        ["wav", "load_encoder", "log-mel", "hours", "Hz", "clips,", "mel bands", "audio"],
    ),
    "a classifier": (
        {"classifier": {"multi_label": False}, "scores": True},
        ["A classifier of audio", "m2dx.load_classifier(", "-> (1, 2)", "2 labels, of which one holds, and",
         "- a|b\n", "- <b>d\n", "first 0.64 s of a clip", "score: 0.625", "pipeline_tag: audio-classification",
         "Of the encoder that the classifier was made from, not of the classifier. In percent"],
        ["model-index", "An encoder of", "encoder(wav)", "m2dx.load_encoder", "frozen"],
    ),
    "several labels at a time": (
        {"classifier": {"multi_label": True}},
        ["2 labels, of which any number may hold", "None were measured", "Anything but drums."],
        ["model-index", "one holds"],
    ),
    "a backbone of a plugin": (
        {"backbone": {"name": "conv", "options": {}, "package": "m2dx_conv"}},
        ["with the package m2dx-hub and m2dx_conv; no code", "| network | backbone conv, 2 blocks"],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CARDS)
def test_the_card_of_each_kind(export: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it must say, and what would be wrong of such an encoder; the Hub's own reader takes it."""
    given, must, must_not = CARDS[kind]
    config = json.loads((export / "config.json").read_text())
    config["recipe"] = {"name": "r", "sha256": "abc", "clips": {"count": 7, "fingerprint": "f1"}}
    if "audio" in given:
        del config["mean"], config["std"]
        config |= {"image": {"size": [32, 48], "mean": [0.5] * 3, "std": [0.2] * 3}, "input_size": [32, 48]}
    if "classifier" in given:
        about = {"unit_seconds": 0.64, "short_clips": "pad", "long_clips": "split", "patchout": 0.0}
        about |= {"label_names": ["a|b", "<b>d"], "task": "drums", "score": 0.625}
        config["classifier"] = about | given["classifier"]
    config |= {key: value for key, value in given.items() if key == "backbone"}
    (export / "config.json").write_text(json.dumps(config))
    if "scores" in given:
        score = Score("drums", "accuracy", 0.6, None, (0.6,), "knn", encoder="pretrained")
        write_scores([score], export.parent / "scores.json")
        facts = {"pool": SetFacts("pool", "csv", clips=1112, fingerprint="f00")}
        summary = type("Summary", (), {"data": DataFacts(facts)})
        monkeypatch.setattr("m2dx_hub.card.read_summary", lambda folder: summary)
    text = card_of(export, export.parent, "me/lungs", Stated())
    body = text.split("---\n", 2)[2]
    assert [part for part in must if part not in text] == []
    assert [part for part in must_not if part in text] == []
    assert "None" not in body.replace("None were measured", "") and "\n\n\n" not in text, text
    assert ModelCard(text).data.to_dict()["library_name"] == "m2dx"
