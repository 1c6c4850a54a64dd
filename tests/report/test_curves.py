"""Curves of runs: what the files say is what is drawn."""

import json

import numpy as np
import pytest
from m2dx_draw.curves import curve_names, read_curves, runs_figure

from m2dx.contract.errors import CheckpointError
from m2dx.report.curves import smooth


@pytest.fixture
def make_run(tmp_path):
    """Writes the folder of a run."""

    def write(name, metrics=(), scores=(), *, parent="runs"):
        folder = tmp_path / parent / name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(f"name: {name}\n")
        for file, lines in (("metrics.jsonl", metrics), ("scores_by_step.jsonl", scores)):
            if lines:
                (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return write


def metrics(count=60, *, method="m2d", task=False, scale=1.0):
    rng = np.random.default_rng(0)
    for step in range(10, 10 * count + 1, 10):
        loss = scale * (1 / step + 0.01 * float(rng.random()))
        line = {
            "step": step,
            "epoch": step / 100,
            "lr": 1e-3 * step,
            "time": 1.7e9 + step,
        }
        if method == "m2d":
            line["ema_decay"] = 0.999
        line |= {f"loss_{method}": loss, "loss": loss + (0.5 if task else 0.0)}
        if task:
            line["loss_labels"] = 0.5
        if step % 100 == 0:
            line["rankme"] = float(step)
        yield line


def score(step, mean, *, task="esc10", ci95=0.01):
    return {
        "step": step,
        "task": task,
        "protocol": "linear",
        "metric": "accuracy",
        "mean": mean,
        "ci95": ci95,
    }


def test_metrics_are_drawn_as_they_are_with_a_running_mean_over_noisy_ones(make_run):
    lines = list(metrics())
    run = read_curves(make_run("a", lines))
    figure = runs_figure([run], ["loss", "lr", "rankme"])
    loss, rate, rank = figure.axes
    losses = np.array([line["loss"] for line in lines])
    np.testing.assert_allclose(loss.lines[0].get_ydata(), losses)
    np.testing.assert_allclose(loss.lines[1].get_ydata(), smooth(losses))
    assert len(rate.lines) == 1 and list(rate.lines[0].get_ydata()) == [line["lr"] for line in lines]
    assert list(rank.lines[0].get_xdata()) == list(range(100, 601, 100)) == list(rank.lines[0].get_ydata())
    assert [axes.get_title(loc="left")[:6] for axes in figure.axes] == ["Total ", "Learni", "RankMe"]
    assert not figure.legends  # a single run needs no key


def test_several_runs_share_the_panels_and_have_a_colour_each(make_run):
    runs = [read_curves(make_run(name, list(metrics(scale=n + 1.0)))) for n, name in enumerate("ab")]
    figure = runs_figure(runs, ["loss"])
    means = [line for line in figure.axes[0].lines if line.get_alpha() is None]
    assert len({line.get_color() for line in means}) == 2
    np.testing.assert_allclose(means[1].get_ydata(), 2 * means[0].get_ydata())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert [line.get_color() for line in legend.get_lines()] == [line.get_color() for line in means]


def test_what_is_worth_drawing_is_found(make_run):
    alone = read_curves(make_run("alone", list(metrics())))
    assert curve_names([alone]) == ["loss", "lr", "ema_decay", "rankme"]
    tasks = read_curves(make_run("tasks", list(metrics(task=True)), [score(100, 0.5)]))
    assert curve_names([tasks]) == [
        "loss", "loss_m2d", "loss_labels", "lr", "ema_decay", "rankme", "scores",
    ]  # fmt: skip
    mae = read_curves(make_run("mae", list(metrics(method="msm_mae"))))
    assert curve_names([mae]) == ["loss", "lr", "rankme"]  # it has no target network


def test_scores_by_step_are_drawn_for_each_task_with_their_intervals(make_run):
    first = make_run("a", scores=[score(200, 0.6), score(100, 0.5), score(100, 0.9, task="env", ci95=None)])
    second = make_run("b", scores=[score(100, 0.4, ci95=0.05)])
    figure = runs_figure([read_curves(first), read_curves(second)], ["scores"])
    esc10, env = figure.axes
    assert esc10.get_title(loc="left") == "esc10, linear: accuracy (%)" and env.get_title(
        loc="left"
    ).startswith("env")
    a, b = esc10.containers
    assert list(a.lines[0].get_xdata()) == [100, 200] and list(a.lines[0].get_ydata()) == [50, 60]
    (bars,) = b.lines[2]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [35, 45])
    assert len(env.containers) == 1


def test_what_no_run_has_is_refused(make_run, tmp_path):
    run = read_curves(make_run("a", list(metrics())))
    with pytest.raises(CheckpointError, match=r"one of .*clips|loss.* or scores, but is 'accuracy'"):
        runs_figure([run], ["accuracy"])
    with pytest.raises(CheckpointError, match=r"scores_by_step.jsonl is missing in a"):
        runs_figure([run], ["scores"])
    with pytest.raises(CheckpointError, match=r"no curves to draw. metrics.jsonl is missing"):
        read_curves(make_run("empty"))
    with pytest.raises(CheckpointError, match=r"must be the folder of a run"):
        read_curves(tmp_path)
    with pytest.raises(ValueError, match="at least one run"):
        runs_figure([])


def test_runs_of_one_name_are_numbered(make_run):
    runs = [read_curves(make_run("a", list(metrics()), parent=parent)) for parent in ("x", "y")]
    (legend,) = runs_figure(runs, ["loss"]).legends
    assert [text.get_text() for text in legend.get_texts()] == ["a (1)", "a (2)"]
