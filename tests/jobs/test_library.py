"""The commands from Python: the same files, and a typed result."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from test_pipeline import EVALUATION

import m2dx
from m2dx.contract.components import Score


def test_train_evaluate_and_export(tiny_recipe: Any, few_notes: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("train.epochs=0.6", EVALUATION.format(few_notes))
    run = m2dx.train(recipe)
    assert run.summary is not None and run.summary.steps == 3 and run.encoder == run.folder / "encoder"
    assert {score.encoder for score in run.scores} == {"pretrained", "random_weights", "mean_logmel"}
    assert run.verdict and (run.folder / "report.html").is_file()
    with pytest.raises(m2dx.RecipeError, match="holds a run with a checkpoint"):
        m2dx.train(run.folder / "recipe.yaml")

    scored = m2dx.evaluate(run.encoder, run.folder / "recipe.yaml")
    assert scored.summary is None and scored.encoder == run.encoder
    own, before = ([of.mean for of in found.scores] for found in (scored, run))
    assert own == before and (scored.folder / "scores.json").is_file()

    with pytest.raises(m2dx.PluginError, match="there is no dataset"):  # in an empty host
        m2dx.train(recipe, overwrite=True, host=m2dx.PluginHost({}))

    folder = m2dx.export(run.folder, tmp_path / "exported")
    assert m2dx.load_encoder(folder).embed_dim == m2dx.load_encoder(run.encoder).embed_dim


@pytest.mark.parametrize(("rank", "scores"), [("0", 1), ("1", 0)])
def test_only_the_main_process_of_a_launch_reads_scores(
    rank: str, scores: int, tiny_recipe: Any, few_notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Score("notes", "accuracy", 0.5, None, (0.5,), "knn", encoder="pretrained")
    monkeypatch.setattr("m2dx.jobs.train.run_recipe", lambda *_, **__: Mock(stopped_by=None))
    monkeypatch.setattr("m2dx.jobs.library.read_scores", lambda path: [score])
    monkeypatch.setenv("RANK", rank)
    assert len(m2dx.train(tiny_recipe(EVALUATION.format(few_notes))).scores) == scores


def test_a_name_of_a_package_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "m2dx_specialise", None)
    monkeypatch.delitem(vars(m2dx), "specialise", raising=False)
    with pytest.raises(AttributeError, match="needs the package m2dx-specialise"):
        _ = m2dx.specialise
