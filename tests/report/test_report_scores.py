"""Scores on the page: the table with the baselines, what may be said of it, and scores on the way."""

import json

import numpy as np
from matplotlib.figure import Figure
from report_pages import entry, page_of

from m2dx.contract.components import Score
from m2dx.report.curves import draw_scores, title_of
from m2dx.report.page import arrange_scores
from m2dx.results.run_folder import read_run
from m2dx.results.scores import StepScore, read_step_scores, write_scores


def test_scores_stand_by_task_and_the_best_is_marked():
    scores = [
        entry("pretrained", 0.8),
        entry("pretrained", 0.5, task="drums", ci95=None),
        entry("pretrained", 0.7, protocol="knn"),
        entry("mean_logmel", 0.6),
        entry("mean_logmel", 0.55, task="drums", ci95=None),
    ]
    table = arrange_scores(scores)
    assert table.columns == ("Pre-trained", "Mean log-mel")
    (group,) = table.groups
    cells = {row.label: [cell and (cell.text, cell.is_best) for cell in row.cells] for row in group.rows}
    assert cells == {
        "instrument, linear (accuracy)": [("80.0 ± 1.0", True), ("60.0 ± 1.0", False)],
        "instrument, knn (accuracy)": [("70.0 ± 1.0", True), None],
        "drums, linear (accuracy)": [("50.0", False), ("55.0", True)],
    }


def test_the_page_begins_with_the_verdict_and_a_chart_of_every_column(run):
    scores = [
        entry(encoder, mean, task=task, protocol=protocol, ci95=half)
        for task in ("instrument", "drums")
        for protocol in ("knn", "linear")
        for encoder, mean, half in (("pretrained", 0.8, 0.125), ("mean_logmel", 0.6, None))
    ]
    write_scores(scores, run / "scores.json")
    page = page_of(run)
    assert page.all("h2")[0]["id"] == "result" and page.sections[0].startswith(
        "The pre-trained encoder is ahead"
    )
    bars = [attrs["style"] for attrs in page.all("i") if attrs["class"] == "fill"]
    assert bars == ["width: 80.0%", "width: 60.0%"] * 4
    intervals = [attrs["style"] for attrs in page.all("i") if attrs["class"] == "interval"]
    assert intervals == ["left: 67.5%; right: 7.5%"] * 4  # none where it is not known
    figures = [section for section in page.sections if "knn, accuracy" in section]
    assert figures == page.sections[:1]


def by_step(step, mean, *, ci95=None, protocol="linear"):
    return StepScore(step, Score("drums", "accuracy", mean, ci95, (mean,), protocol))


def test_scores_on_the_way_are_drawn_with_their_interval():
    scores = [by_step(10, 0.5, ci95=0.1), by_step(20, 0.7, ci95=0.05)]
    axes = Figure().add_subplot()
    draw_scores(axes, scores)
    assert title_of(scores[0].column) == "drums, linear: accuracy (%)"
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(10, 50), (20, 70)])
    (bars,) = axes.containers[0].lines[2]
    np.testing.assert_allclose([bar[:, 1] for bar in bars.get_segments()], [(40, 60), (65, 75)])


def test_lines_that_are_no_score_of_a_step_are_counted(tmp_path):
    good = {"step": 5, "task": "drums", "protocol": "knn", "metric": "accuracy", "mean": 0.5, "ci95": None}
    bad = [{**good, "mean": "high"}, {**good, "step": None}, {**good, "mean": float("nan")}, {"step": 5}, [1]]
    again = {**good, "mean": 0.75, "values": [0.75], "details": {}}
    path = tmp_path / "scores_by_step.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [good, *bad, again]) + '{"step": 6, "ta')
    found = read_step_scores(tmp_path)
    (only,) = found.scores
    assert (only.step, only.score.mean, only.score.ci95) == (5, 0.75, None) and found.unreadable == 6
    (tmp_path / "recipe.yaml").write_text("name: a run")
    told = "Lines of scores_by_step.jsonl that cannot be read, and are not shown: 6."
    assert read_run(tmp_path).notes[path.name] == told


def test_the_page_shows_scores_on_the_way_where_there_are_some(run):
    page = page_of(run)
    (label,) = [svg["aria-label"] for svg in page.all("svg") if "instrument" in svg["aria-label"]]
    assert "40.0 ± 2.0 % at step 20" in label and "best 62.5 ± 2.0 % at step 40" in label
    (run / "scores_by_step.jsonl").unlink()
    assert not [svg for svg in page_of(run).all("svg") if "instrument" in svg["aria-label"]]
