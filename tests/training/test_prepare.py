"""What reaches a run from its recipe's data section."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from m2dx.errors import RecipeError
from m2dx.recipe.loading import load_recipe
from m2dx.scoring import Scoring
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
