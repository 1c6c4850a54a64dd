"""What reaches a run from its recipe's data section."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import PluginError, RecipeError
from m2dx.contract.hookspecs import hookimpl
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import load_encoder
from m2dx.encoder.weights import export_encoder
from m2dx.evaluation.knn import Knn
from m2dx.jobs.train import run_recipe
from m2dx.recipe.loading import load_recipe
from m2dx.results.scoring import Scoring, training_of
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare

STATISTICS = ["data.mean=-10.9", "data.std=4.7"]


def test_the_quickstart_takes_its_labelled_notes_three_times_per_epoch(
    host: Any, console: Console, tmp_path: Path
) -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    options = [*STATISTICS, "noise.mean=-9.1", "train.threads=null", f"output={tmp_path}"]
    recipe = load_recipe(recipes / "quickstart.yaml", options, host=host)
    run = prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console)
    batches = run.batches(total_steps=run.batches().steps_per_epoch)
    seen = Counter(key.clip_id for batch in batches for key in batch)
    labelled = [i for i in range(len(run.clips)) if run.clips.labels(i)["instrument"].isfinite().all()]
    assert (len(run.clips), len(labelled)) == (1112, 388)
    assert batches.steps_per_epoch == (1112 + 2 * 388) // 32
    # An epoch's last clips, less than a batch, are left out.
    assert sum(seen.values()) == batches.steps_per_epoch * 32
    assert max(seen.values()) == 3 and {i for i, n in seen.items() if n > 1} <= set(labelled)
    assert sum(seen[i] for i in labelled) >= 3 * 388 - 31


def test_a_group_on_both_sides_is_refused_unless_the_recipe_says_so(
    tiny_recipe: Any, host: Any, make_wav: Any, tmp_path: Path
) -> None:
    rows = [
        ("a", "x", "train", "g"),
        ("b", "y", "train", "h"),
        ("c", "x", "test", "g"),
        ("d", "y", "test", "k"),
    ]
    lines = [f"{make_wav(f'{name}.wav').name},{label},{split},{group}" for name, label, split, group in rows]
    (tmp_path / "leak.csv").write_text("\n".join(["path,label,split,group", *lines]), encoding="utf-8")

    def task(more: str = "") -> Any:
        dataset = f"{{name: csv, path: {tmp_path / 'leak.csv'}}}"
        evaluation = (
            f"evaluation={{tasks: {{t: {{dataset: {dataset}{more}}}}}, evaluators: {{knn: {{name: knn}}}}}}"
        )
        return Scoring.of(tiny_recipe(evaluation), host)

    with pytest.raises(RecipeError, match="'g' \\(in test, train\\)"):
        task()
    assert task(", shared_groups: warn").recipe.evaluation.tasks["t"].shared_groups == "warn"


@pytest.mark.parametrize(
    ("split", "labels", "tested", "told"),
    [
        ("null", "true", "drums", "79 of 79 test clips are trained on with labels (data.sets.notes)"),
        ("train", "true", "drums", None),
        ("null", "path", "drums", None),  # which recording it is says nothing of its class
        ("null", "true", "instrument", None),
    ],
)
def test_labels_of_test_clips_that_are_learned_are_told(
    split: str,
    labels: str,
    tested: str,
    told: str | None,
    tiny_recipe: Any,
    host: Any,
    sounds: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    notes = f"{{name: csv, path: {sounds / 'drums.csv'}, labels: {labels}}}"
    recipe = tiny_recipe(
        f"data.sets={{notes: {{dataset: {notes}, split: {split}}}}}",
        f"evaluation={{tasks: {{t: {{dataset: {{name: csv, path: {sounds / f'{tested}.csv'}}}}}}}}}",
        labels=True,
    )
    found = Scoring.of(recipe, host).taught
    assert (told in found["t"] and told in caplog.text) if told else not found
    untrained = Scoring.of(recipe, host, load_encoder("starter"))
    assert not untrained.taught  # which this recipe has not trained
    elsewhere = tiny_recipe("data.sets={notes: {dataset: {name: csv, path: gone.csv}}}", labels=True)
    assert not Scoring.of(recipe, host, load_encoder("starter"), training=elsewhere).taught
    assert Scoring.of(recipe, host, load_encoder("starter"), training=recipe).taught == found


@pytest.mark.parametrize("place", ["", "encoder", "checkpoints/step-00000003.pt", "../elsewhere"])
def test_the_recipe_that_trained_an_encoder_is_that_of_its_run(
    place: str, tiny_recipe: Any, host: Any, console: Console, tmp_path: Path
) -> None:
    recipe = tiny_recipe("name=mine", "train.epochs=0.6")
    run_recipe(recipe, host, console)
    run = recipe.output / "mine"
    found = training_of(
        export_encoder(run, tmp_path / "runs" / "elsewhere") if ".." in place else run / place, host
    )
    assert (found and found.name) == (None if ".." in place else "mine")
    text = (run / "recipe.yaml").read_text()
    for other in (text.replace("mask_ratio: 0.6", "mask_ratio: 0.7"), "data: {sets: ${NOT_SET}"):  # another's
        (run / "recipe.yaml").write_text(other)
        assert training_of(run / place, host) is None
    (run / "recipe.yaml").write_text(text.replace("log_every: 1", "log_every: 2"))  # as when it goes on
    assert (training_of(run / place, host) is None) == (".." in place)


def test_noise_of_images_is_refused_where_the_recipe_is_of_audio(
    tiny_recipe: Any, host: Any, console: Console, tmp_path: Path
) -> None:
    recipe = tiny_recipe(f"noise={{dataset: {{name: image_folder, path: {tmp_path}}}, ratio: 0.2}}")
    with pytest.raises(
        RecipeError, match=r"noise.dataset: .* is audio, but the data set image_folder lists images"
    ):
        prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console)


def test_weighted_sampling_reaches_the_batches(
    tiny_recipe: Any, host: Any, console: Console, tmp_path: Path
) -> None:
    rows = [f"{number}.wav,{100 if number < 5 else 1}" for number in range(50)]
    (tmp_path / "list.csv").write_text("\n".join(["path,weight", *rows]), encoding="utf-8")

    def run(*more: str) -> Any:
        dataset = (
            f"data.sets={{notes: {{dataset: {{name: csv, path: {tmp_path / 'list.csv'}}}, split: null}}}}"
        )
        recipe = tiny_recipe(dataset, "data.sampling=weighted", "data.epoch_size=8", *more)
        return prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console)

    seen = Counter(key.clip_id for batch in run().batches(total_steps=40) for key in batch)
    assert {clip_id for clip_id, _ in seen.most_common(5)} == set(range(5))
    with pytest.raises(
        RecipeError, match=r"epoch_size below the number of clips \(50\), but it is not given"
    ):
        run("data.epoch_size=null")
    with pytest.raises(RecipeError, match="but it is 50"):
        run("data.epoch_size=50")
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(row.split(",")[0] for row in rows))
    with pytest.raises(RecipeError, match="but all are alike"):
        run()


def test_a_task_is_scored_by_the_evaluators_that_it_names(tiny_recipe: Any, sounds: Path) -> None:
    dataset = f"{{name: csv, path: {sounds / 'drums.csv'}}}"
    evaluation = (
        f"evaluation={{tasks: {{a: {{dataset: {dataset}, evaluators: [knn]}}, b: {{dataset: {dataset}}}}}, "
        "evaluators: {knn: {name: knn}, linear: {name: linear, epochs: 1}}, baselines: [mean_logmel]}"
    )
    recipe = tiny_recipe(evaluation)
    scoring = Scoring.of(recipe, PluginHost.discover())
    assert scoring.protocols() == {"a": ("knn",), "b": ("knn", "linear")}
    with pytest.raises(RecipeError, match=r"tasks.a.evaluators must be among .*knn, linear.*but has nn"):
        tiny_recipe(evaluation.replace("[knn]", "[nn]"))


def test_an_evaluator_may_refuse_a_task_before_the_training(tiny_recipe: Any, sounds: Path) -> None:
    class Picky(Knn):
        name = "picky"

        def check(self, task: Any) -> None:
            raise RecipeError(f"{task.name}: {len(task.label_names)} classes, {len(task.clips)} clips")

    host = PluginHost.discover()
    host.register("picky", SimpleNamespace(evaluators=hookimpl(lambda: [Picky])))
    dataset = f"{{name: csv, path: {sounds / 'drums.csv'}}}"
    evaluation = (
        f"evaluation={{tasks: {{a: {{dataset: {dataset}}}}}, evaluators: {{picky: {{name: picky}}}}}}"
    )
    with pytest.raises(RecipeError, match="a: 11 classes, 335 clips"):
        Scoring.of(tiny_recipe(evaluation, with_host=host), host)


@pytest.mark.parametrize(
    ("name", "override"),
    [("field", "data.sets={field: {dataset: failing}}"), ("noise", "noise={dataset: failing, ratio: 0.2}")],
)
@pytest.mark.parametrize("method", ["clips", "missing", "notes"])
def test_a_data_set_that_fails_is_named_whatever_it_is_asked(
    method: str, name: str, override: str, tiny_recipe: Any, console: Console
) -> None:
    def fail(self: Dataset, *_: object) -> list[Any]:
        raise KeyError("no column")

    parts = {"name": "failing", "clips": lambda self, split=None: [Clip(Path("a.wav"))], method: fail}
    host = PluginHost.discover()
    host.register("acme", SimpleNamespace(datasets=hookimpl(lambda: [type("Failing", (Dataset,), parts)])))
    expected = rf"data set '{name}' \(component 'failing'\): {method}\(\) failed: KeyError: 'no column'"
    with pytest.raises(PluginError, match=expected):
        prepare(tiny_recipe(override, with_host=host), host, Processes(0, 1, torch.device("cpu")), console)


def test_processes_that_read_other_lists_end_with_a_reason(
    tiny_recipe: Any, host: Any, console: Console
) -> None:
    class Two(Processes):
        def gather(self, value: Any) -> list[Any]:
            return [value, "another"]

    with pytest.raises(RecipeError, match=r"all processes must read the same clips and labels"):
        prepare(tiny_recipe(), host, Two(0, 2, torch.device("cpu")), console)
