"""The whole way on the generated data: train, resume, export, evaluate, through the command line."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from m2dx_audioset.sample import write_sample

import m2dx

RECIPE = """
output: runs
data:
  sets:
    audioset: {dataset: {name: audioset, path: "${AUDIOSET}"}, split: train}
  sampling: weighted
  epoch_size: 8
  mean: -7.0
  std: 4.0
  workers: 0
noise: {ratio: 0.2, mean: -7.0, dataset: {name: fsd50k, path: "${FSD50K}"}, split: train}
audio: {crop_seconds: 0.64}
model: {size: tiny, depth: 1, mask_ratio: 0.7, predictor: {embed_dim: 24, depth: 1, num_heads: 2}}
tasks:
  labels:
    offline_encoder: {name: audioset_labels}
    online_mapper: {name: pool_linear}
    loss: {name: bce}
train: {epochs: 1, warmup_epochs: 0, batch_size: 4, device: cpu, threads: 1, log_every: 1}
evaluation:
  tasks:
    as20k: {dataset: {name: audioset, path: "${AUDIOSET}", train: balanced}, unit_seconds: 0.64}
    fsd50k: {dataset: {name: fsd50k, path: "${FSD50K}"}, unit_seconds: 0.64}
  evaluators: {knn: {name: knn, k: 3}}
  baselines: [random_weights]
"""
"""Two steps an epoch."""


@pytest.fixture
def run(
    tmp_path: Path, host: m2dx.PluginHost, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs a command of m2dx in a folder with recipe.yaml, and gives what it prints."""
    data = write_sample(tmp_path / "data", clips=24)
    monkeypatch.setenv("AUDIOSET", str(data / "audioset"))
    monkeypatch.setenv("FSD50K", str(data / "fsd50k"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return partial(command, host=host)


@pytest.mark.usefixtures("no_page")
def test_train_resume_export_evaluate(run: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "recipe"
    text = run("train", "recipe.yaml")
    assert "audioset: 527 classes" in text
    assert "missing: audioset: 1 of 9 segments of balanced_train_segments.csv have no audio" in text
    assert "missing: noise: 2 of 26 files of dev.csv are not in" in text
    run("train", "recipe.yaml", "train.epochs=2", "--resume")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(
        0.5 < line["loss_labels"] < 1.0 for line in lines
    )  # ln 2 where nothing is known of 527 classes

    run("export", str(folder), "encoder")
    names = json.loads((tmp_path / "encoder" / "config.json").read_text())["label_names"]["audioset"]
    assert len(names) == 527 and names[:2] == ["Speech", "Male speech, man speaking"]

    text = run("evaluate", "encoder", "recipe.yaml")
    (path,) = (folder / "evaluation").glob("*/scores.json")
    scores = json.loads(path.read_text())
    assert {(s["encoder"], s["task"], s["metric"]) for s in scores} == {
        (encoder, task, "mAP") for encoder in ("pretrained", "random_weights") for task in ("as20k", "fsd50k")
    }
    assert all(0.0 < score["mean"] <= 1.0 for score in scores)


def test_a_set_without_audioset_s_classes_is_refused_by_name(run: Callable[..., str]) -> None:
    other = "data.sets.audioset.dataset={name: fsd50k, path: '${FSD50K}'}"
    with pytest.raises(
        m2dx.RecipeError,
        match=r"^recipe\.yaml:\d+: tasks\.labels\..* but 0 have them: audioset \(200 classes\)",
    ):
        run("train", "recipe.yaml", other, "data.sampling=uniform")


def test_the_recipe_parts_of_the_readme_load(
    run: Callable[..., str], host: m2dx.PluginHost, tmp_path: Path
) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    main, noise = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    path = tmp_path / "readme.yaml"
    path.write_text(main + noise, encoding="utf-8")
    recipe = m2dx.load_recipe(path, host=host)
    assert recipe.noise is not None and recipe.noise.ratio == 0.3
    assert set(recipe.evaluation.tasks) == {"as20k", "fsd50k"}
