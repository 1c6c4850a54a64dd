"""What the recipes' first lines and the page about them say, against the published tables."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from m2dx_tasks.papers.published import load_table, table_keys
from msm_mae_expected import HEAR_SCORES, HEAR_TASKS, TABLE_1, TABLES
from msm_mae_expected import ROWS as MSM_MAE_ROWS
from recipe_files import PUBLISHED, RECIPES, first_lines

from m2dx.recipe.schema import Recipe

ROWS = {
    "m2d_audioset": (("m2d-x-iii", "M2D/0.7"), ("m2d-x-iv", "M2D/0.7")),
    "m2d_audioset_06": (("m2d-x-iii", "M2D/0.6"), ("m2d-x-iv", "M2D/0.6")),
    "m2d_audioset_all": (
        ("m2d-x-iii", "M2D/0.7 (all patches → target)"),
        ("m2d-x-iv", "M2D/0.7 (all patches → target)"),
    ),
    "msm_mae_audioset": (("m2d-x-iii", "MSM-MAE/0.75 [16]"), ("m2d-x-iv", "MSM-MAE/0.75 [16]")),
    "m2d_as": (("m2d-x-v", "M2D-AS/0.7"), ("m2d-x-vi", "M2D-AS/0.7")),
    "m2d_audioset_16x4": (("m2d-x-xii", "16×4/0.7 (T=2.00s)"),),
    "m2d_s_80x4": (("m2d-x-vii", "η = 0.2"),),
    "m2d_s_80x4_hubert": (("m2d-x-xi", "(e)"),),
    "m2d_s_4s": (("m2d-x-x", "M2D-S/0.6 T=4.0s"),),
    "m2d_s_5s": (("m2d-x-x", "M2D-S/0.6 T=5.12s"),),
    "m2d_s_6s": (("m2d-x-x", "M2D-S/0.6 T=6.08s"),),
    "icbhi_m2d": (("m2d-x-xiii", "M2D/0.7 (η = 0.3)"),),
    "icbhi_m2d_x": (("m2d-x-xiii", "M2D-X/0.7 (η = 0.3)"),),
    "icbhi_m2d_no_noise": (("m2d-x-xiii", "M2D/0.7 (η = 0.0)"),),
    "icbhi_m2d_x_no_noise": (("m2d-x-xiii", "M2D-X/0.7 (η = 0.0)"),),
}
"""Rows of `m2dx results --table`; the scores of the other recipes are in tables that m2dx does not have."""
NINE = ("ESC-50", "US8K", "SPCV2", "VC1", "VF", "CRM-D", "GTZAN", "NSynth", "Surge")

OF_M2D = [name for name in PUBLISHED if name not in TABLE_1]
"""The recipes of the M2D-X paper."""

COMMANDS = [
    pytest.param(line.removeprefix("#").strip(), id=re.sub(r".*name=(\w+).*", r"\1", line))
    for path in sorted(RECIPES.rglob("*.yaml"))
    for line in path.read_text(encoding="utf-8").splitlines()
    if line.startswith("#   m2dx train ")
]


def published_scores(name: str) -> dict[str, str]:
    """What a recipe's rows have, as printed: all scores, but of linear evaluation the average (else the mean) alone."""
    scores = {}
    for key, label in ROWS[name]:
        (row,) = [row for row in load_table(key).rows if row.label == label]
        if row.cells.keys() >= set(NINE):
            printed = row.cells.get("Avg.")
            mean = sum(row.cells[task].mean for task in NINE) / 9
            scores["mean" if printed is None else "average"] = f"{printed.mean if printed else mean:.1f}"
        else:
            cells = {column.split(" ")[0]: cell for column, cell in row.cells.items()}
            scores |= {column: f"{cell.mean:.{cell.decimals}f}" for column, cell in cells.items()}
    return scores


def written_scores(text: str) -> dict[str, str]:
    """Scores by task in text such as "average of 9 tasks 80.2; AS2M 47.9 and AS20K 38.6 mAP"."""
    text = re.sub(r"average of 9 tasks|linear evaluation(?= \d)", "average", text)
    text = text.replace("mean of the nine printed scores", "mean")
    found = re.findall(r"(average|mean|\b[A-Z][A-Za-z0-9/-]*) (\d+\.\d+)", text)
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("name", OF_M2D)
def test_the_first_lines_say_where_it_is_published_and_what_it_took(name: str) -> None:
    head = first_lines(name)
    assert re.search(r"M2D-X paper, (IV-[B-E]|appendix A)", head)
    assert re.search(r"[Tt]ables? [IVX]+|Fig\. \d", head)
    assert re.search(r"\d\d\.\d", head), "the published scores"
    assert re.search(r"A100 80 GB|24 GB GPU|the paper names no GPUs", head)
    assert re.search(r"\d+ h\b|Table XV has no row", head)


@pytest.mark.parametrize("name", ROWS)
def test_the_first_lines_have_the_published_scores(name: str) -> None:
    head = first_lines(name)
    assert written_scores(head) == published_scores(name)
    (tables,) = re.findall(r"Tables? ([IVX]+)(?: and ([IVX]+))?(?: \(i*\d?\))?, row", head)
    expected = [key.removeprefix("m2d-x-").upper() for key, _ in ROWS[name]]
    assert [table for table in tables if table] == expected


@pytest.mark.parametrize("name", sorted(set(OF_M2D) - set(ROWS)))
def test_recipes_without_a_row_name_tables_that_m2dx_does_not_score(name: str) -> None:
    first = re.search(r"Tables? ([IVX]+)\b|Fig\. 6", first_lines(name))
    of_others = {"xiv"}  # MAE's code fine-tunes for it
    assert (
        first and (first[1] or "").lower() not in {key.rpartition("-")[2] for key in table_keys()} - of_others
    )


def hear_scores(name: str) -> dict[str, str]:
    """Published scores of a model of the MSM-MAE paper, by task."""
    return dict(zip(HEAR_TASKS, HEAR_SCORES[name].split(), strict=True))


@pytest.mark.parametrize("name", TABLE_1)
def test_the_first_lines_of_msm_mae_have_its_patches_and_scores(name: str) -> None:
    head, row = first_lines(name), TABLE_1[name]
    frequency, time = row.patch_size
    patches = f"{row.total} patches of {frequency} x {time} ({row.frequency} x {row.time})"
    assert f"crops of {row.frames / 100} s, {patches}" in head
    assert "MSM-MAE paper, 4.1, table 1" in head and "names no GPUs" in head
    assert f"{TABLES[name]}, HEAR 2021:" in head
    assert written_scores(head) == hear_scores(name)


@pytest.mark.parametrize("name", MSM_MAE_ROWS)
def test_the_scores_of_msm_mae_are_those_of_the_tables_of_m2dx(name: str) -> None:
    cells = {}
    for table in ("msm-mae-2", "msm-mae-3", "msm-mae-4"):
        (row,) = [row for row in load_table(table).rows if row.label == MSM_MAE_ROWS[name]]
        cells |= {column: f"{cell.mean:.1f}" for column, cell in row.cells.items()}
    assert cells == hear_scores(name)


@pytest.mark.parametrize("page", ["icbhi_m2d.yaml", "README.md"])
def test_a_checkpoint_is_scored_on_icbhi_with_nothing_else(
    page: str, load: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FSD50K", "M2D_16X4"):
        monkeypatch.delenv(name)
    text = (RECIPES / page).read_text(encoding="utf-8")
    (overrides,) = re.findall(r"m2dx evaluate [A-Z]+ recipes/icbhi_m2d\.yaml([^`\n]*)", text)
    recipe = load("icbhi_m2d", *shlex.split(overrides))
    assert list(recipe.evaluation.tasks) == ["icbhi"] and recipe.evaluation.baselines == ()


def test_audioset_alone_trains_as_long_as_librispeech(load: Callable[..., Recipe]) -> None:
    text = (RECIPES.parent / "docs" / "sweeps.md").read_text(encoding="utf-8").replace("\\\n", "")
    (command,) = re.findall(r"^m2dx train recipes/m2d_s_80x4\.yaml (.*)$", text, re.MULTILINE)
    base, recipe = load("m2d_s_80x4"), load("m2d_s_80x4", *shlex.split(command))
    assert list(recipe.data.sets) == ["audioset"] and recipe.noise is None
    assert recipe.data.sets["audioset"].dataset == base.noise.dataset
    assert (recipe.data.epoch_size, recipe.data.mean, recipe.data.std) == (281241, -7.1, 4.2)
    assert recipe.train == base.train and recipe.model == base.model


@pytest.mark.parametrize("command", COMMANDS)
def test_the_overrides_that_comments_name_are_valid(command: str, load: Callable[..., Recipe]) -> None:
    _, _, path, name, *overrides = shlex.split(command)
    recipe = load(str(Path(path).relative_to("recipes").with_suffix("")), name, *overrides)
    assert recipe.name == name.removeprefix("name=") and recipe.name not in PUBLISHED


def test_the_page_lists_every_recipe_with_its_link() -> None:
    page = (RECIPES / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page)
    assert [link for link in links if not link.startswith("https:") and not (RECIPES / link).exists()] == []
    assert {f"{name}.yaml" for name in [*PUBLISHED, "quickstart"]} <= set(links)


@pytest.mark.parametrize("name", OF_M2D)
def test_the_page_says_of_each_recipe_what_its_first_lines_say(name: str) -> None:
    (tables, _, machine, score), head = page_cells(name), first_lines(name)
    own = [key.removeprefix("m2d-x-").upper() for key, _ in ROWS.get(name, ())]
    named = re.findall(r"[IVX]+|Fig\. \d", tables)
    assert named and all(table in own or re.search(rf"\b{table}\b", head) for table in named)
    if hours := re.search(r", (\d+)$", machine):
        gpus = machine.removesuffix(hours[0]).replace("1 x", "one")
        assert re.search(rf"Table XV.*{gpus}\b.* {hours[1]} h\b", head)
    else:
        assert machine.endswith("not given") and "Table XV has no row" in head
    numbers = re.findall(r"\d+\.\d+", score)
    assert numbers and set(numbers) <= set(re.findall(r"\d+\.\d+", head))
    assert written_scores(score).items() <= written_scores(head).items()
    assert len(written_scores(score)) == (0 if name.startswith("sprsound") else len(numbers))


@pytest.mark.parametrize("name", TABLE_1)
def test_the_page_has_the_patches_and_scores_of_msm_mae(name: str) -> None:
    setting, tables, _, machine, score = page_cells(name, 5)
    frequency, time = TABLE_1[name].patch_size
    assert setting.endswith(f"{frequency} x {time}, {TABLE_1[name].frames / 100} s")
    assert (tables, machine) == (re.sub("Tables? ", "", TABLES[name]), "not given")
    written = written_scores(score)
    assert len(written) >= 5 and written.items() <= hear_scores(name).items()


def page_cells(name: str, last: int = 4) -> list[str]:
    """The last cells of a recipe's line in the page's tables."""
    page = (RECIPES / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith(f"| [{name}.yaml]")]
    return [cell.strip() for cell in line.strip("|").split("|")][-last:]
