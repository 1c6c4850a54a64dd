"""The benchmarks of memory and of the cost of a clip: what they count, and what they write."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("cost", "cost_tables", "memory_tables", "step", "step_measures", "step_tables")
MACHINE: dict[str, Any] = {
    "date": "2026-11-22",
    "machine": {"device": "CPU", "cpu": "x", "cores": 2, "threads": 1, "load_before": 0.5, "system": "Linux"},
    "versions": {"m2dx": "0", "torch": "2", "python": "3"},
}


@pytest.fixture(scope="module")
def cost() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import cost

        yield cost
    for name in NAMES:
        sys.modules.pop(name, None)


def test_flops_of_a_model_without_values_are_those_of_the_published_sizes(
    cost: Any, host: Any, tmp_path: Path
) -> None:
    options = cost.parse(["--precision", "fp32"])
    recipe = cost.recipe_for(cost.Row("model", "base", "16x16", 608), options, host, str(tmp_path))
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"depth": 1})})
    found = cost.flops(recipe, host)
    tokens, width = 1 + 190, 768
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width  # matrices, and attention's two products
    embedding = 2 * 190 * 16 * 16 * width
    assert found["encoding"] == pytest.approx(block + embedding, rel=1e-6)
    assert found["step"] > 2 * found["encoding"]


def test_one_of_length_patch_and_model_grows_at_a_time(cost: Any) -> None:
    rows = cost.rows_of(cost.parse(["--frames", "208,608", "--sizes", "tiny,large"]))
    assert [str(row) for row in rows if row.grows == "length"] == ["small 16x16 80x208", "small 16x16 80x608"]
    assert {row.frames for row in rows if row.grows != "length"} == {608}
    assert [row.size for row in rows if not row.timed] == ["large"]


def test_tables_stand_between_the_markers(cost: Any, tmp_path: Path) -> None:
    import cost_tables
    import memory_tables

    page = tmp_path / "page.md"
    page.write_text("a\n<!-- memory-benchmark: begin -->\nold\n<!-- memory-benchmark: end -->\nb\n")
    sizes = {"size": "tiny", "patch": "16x16"}
    result = {**sizes, "precision": "bf16", "clips": 4, "estimated": 9 * 2**30, "program": 0, "problem": None}
    report = {**MACHINE, "options": {"crop_seconds": 6.08}, "results": [{**result, "measured": 10 * 2**30}]}
    memory_tables.write_between(page, "memory", memory_tables.markdown(report))
    text = page.read_text()
    assert "| tiny | 16x16 | bf16 | 4 | 9.00 | 10.00 | -10% |" in text and "old" not in text
    assert text.startswith("a\n") and text.endswith("b\n")
    assert memory_tables.has_markers(page, "memory") and not memory_tables.has_markers(page, "cost")
    quartiles = {"median": 0.2, "q1": 0.1, "q3": 0.3}
    row = {**sizes, "grows": "model", "frames": 608, "patches": 190, "flops": {"step": 4e9, "encoding": 1e9}}
    timed = {
        "seconds": {"step": quartiles, "encoding": quartiles},
        "share_of_matrix_rate": {"step": 0.5, "encoding": 0.4},
    }
    options = {"precision": "bf16", "batch": 4, "repeats": 3, "clock": "cpu"}
    rates = {"median": 3e11, "q1": 2e11, "q3": 4e11}
    lines = cost_tables.markdown(
        {
            **MACHINE,
            "options": options,
            "matrix_flops_per_second": rates,
            "results": [{**row, **timed}, {**row, "seconds": {}, "share_of_matrix_rate": {}}],
        }
    ).splitlines()
    assert lines[2] == "| model | tiny | 16x16 | 80x608 | 190 | 4 | 200 (100 to 300) | 50% | 1 | 200 | 40% |"
    assert lines[3] == "| model | tiny | 16x16 | 80x608 | 190 | 4 |  |  | 1 |  |  |"
