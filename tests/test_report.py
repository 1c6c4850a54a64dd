"""The page of a run: what it shows, what it says about what is missing, and that it is safe and self-contained."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from m2dx.components import Score
from m2dx.errors import CheckpointError
from m2dx.evaluation.runner import EncoderScore, write_scores
from m2dx.report import MaskedExample, example_figure, loss_figure, write_report
from m2dx.report.figures import ACCENT, INK, curve, curves_figure, figure_svg, smooth
from m2dx.report.scores import arrange_scores, verdict

VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Text, elements and attributes of a page; fails on tags that do not match."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text, self.bold = [], [], "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if "strong" in self.open:
            self.bold.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def masked_example(name="a clip", *, noise=1.0):
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(8, 12))
    is_masked = np.array([[True, False, True], [True, True, False]])
    return MaskedExample(name, clean, clean + noise * rng.normal(size=clean.shape), is_masked, 0.12)


def entry(encoder, mean, *, ci95=0.01, task="instrument", protocol="linear"):
    return EncoderScore(encoder, Score(task, "accuracy", mean, ci95, (mean,), protocol))


@pytest.fixture
def run(tmp_path):
    """A folder with all that a run leaves."""
    folder = tmp_path / "small-run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: small-run\n# a < b & c\n")
    lines = [
        {"step": s, "loss": 3 / s, "loss_m2d": 2 / s, "loss_labels": 1 / s, "lr": 1e-3, "time": 1.7e9 + s}
        for s in range(1, 61)
    ]
    lines[-1]["rankme"] = 41.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {
        "steps": 60,
        "total_steps": 80,
        "seconds": 75.0,
        "clips": 3840,
        "bad_files": 1,
        "data_clips": 500,
    }
    summary |= {"collapse_warnings": 2, "stopped_by": "SIGTERM", "missing": ["<drums> is not there"]}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "bad_files.tsv").write_text("path\treason\nsounds/<b>.wav\tempty & short\n")
    scores = [entry("pretrained", 0.8), entry("random_weights", 0.7), entry("mean_logmel", 0.75)]
    write_scores(scores, folder / "scores.json")
    return folder


def page_of(folder, examples=()):
    path = write_report(folder, examples)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_page_shows_everything_of_the_run(run):
    page = page_of(run, [masked_example()])
    for text in ("small-run", "14 November 2023", "torch 2.", "60 of 80", "3,840", "1 min 15 s", "500"):
        assert text in page.text
    assert "2 RankMe measurements" in page.text
    assert "stopped by SIGTERM" in page.text
    assert "Missing from the data: <drums> is not there" in page.text
    assert "sounds/<b>.wav" in page.text and "empty & short" in page.text
    assert "# a < b & c" in page.text
    assert page.bold == ["80.0 ± 1.0"]
    labels = [attrs["aria-label"] for attrs in page.all("svg")]
    starts = [
        "Total loss",
        "M2D loss",
        "Task loss: labels",
        "Learning rate",
        "RankMe",
        *["Log-mel of a clip"] * 3,
    ]
    assert [label.startswith(start) for label, start in zip(labels, starts, strict=True)] == [True] * 8
    assert "3 at step 1, 0.05 at step 60" in labels[0]


def test_page_needs_nothing_from_elsewhere(run):
    page = page_of(run, [masked_example()])
    assert {"script", "link", "iframe", "img", "a"}.isdisjoint(name for name, _ in page.elements)
    references = [
        value
        for _, attrs in page.elements
        for key, value in attrs.items()
        if key in ("href", "src", "xlink:href")
    ]
    assert references  # spectrograms
    assert all(value.startswith(("data:", "#")) for value in references)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_headings_are_in_order_and_label_their_sections(run):
    page = page_of(run)
    levels = [int(name[1]) for name, _ in page.elements if name in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    ids = [attrs["id"] for attrs in page.all("h2")]
    assert [attrs["aria-labelledby"] for attrs in page.all("section")] == ids


def test_only_the_recipe_is_needed_and_each_missing_file_is_named(run):
    for name in ("metrics.jsonl", "summary.json", "bad_files.tsv", "scores.json"):
        (run / name).unlink()
    page = page_of(run)
    for name in ("metrics.jsonl", "summary.json", "bad_files.tsv", "scores.json"):
        assert f"{name} is missing" in page.text
    assert "date not known" in page.text
    assert "No example clips" in page.text
    assert not page.all("svg")


def test_a_folder_without_recipe_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"recipe\.yaml"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "metrics.jsonl",
            '{"step": 1, "loss": 2.0}\n{"step": 2, "lo',
            "cannot be read, and are not shown: 1",
        ),
        ("metrics.jsonl", "", "metrics.jsonl is empty"),
        ("summary.json", "{", "summary.json cannot be read"),
        ("summary.json", "[1]", "must hold an object, but holds a list"),
        ("scores.json", '[{"encoder": "x"}]', "must be scores written by m2dx"),
        ("scores.json", "[]", "names no evaluation"),
    ],
)
def test_a_broken_file_is_named_and_the_rest_shown(run, name, content, told):
    (run / name).write_text(content)
    page = page_of(run)
    assert told in page.text
    assert "sounds/<b>.wav" in page.text


def test_bad_files_of_all_processes_are_listed_once_and_up_to_fifty(run):
    rows = "".join(f"clip{number:03}.wav\tNaN\n" for number in range(60))
    (run / "bad_files.rank1.tsv").write_text("path\treason\nsounds/<b>.wav\tempty & short\n" + rows)
    page = page_of(run)
    assert page.text.count("sounds/<b>.wav") == 0  # the 61st
    assert "clip049.wav" in page.text and "clip050.wav" not in page.text
    assert "The first 50 of 61" in page.text


def test_no_bad_files_is_said(run):
    (run / "bad_files.tsv").write_text("path\treason\n")
    assert "None: every file could be used" in page_of(run).text


def test_all_text_is_escaped(run):
    evil = "<script>alert('$x$')</script>"
    write_scores([entry(evil, 0.5, task=evil, protocol=evil)], run / "scores.json")
    (run / "recipe.yaml").write_text(f"name: '{evil}'\n")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, f"loss_{evil}": 1.0}) + "\n")
    (run / "summary.json").write_text(
        json.dumps({"stopped_by": evil, "versions": {"m2dx": evil}, evil: evil})
    )
    (run / "bad_files.tsv").write_text(f"path\treason\n{evil}\t{evil}\n")
    page = page_of(run, [masked_example(evil)])
    assert not page.all("script")
    assert page.text.count(evil) >= 8
    assert any(evil in attrs["aria-label"] for attrs in page.all("svg"))


def test_scores_stand_by_task_and_the_best_is_marked():
    scores = [
        entry("pretrained", 0.8),
        entry("pretrained", 0.5, task="drums", ci95=None),
        entry("pretrained", 0.7, protocol="knn"),
        entry("mean_logmel", 0.6),
        entry("mean_logmel", 0.55, task="drums", ci95=None),
    ]
    table = arrange_scores(scores)
    assert table.tasks == (("instrument", 2), ("drums", 1))
    assert [column[:2] for column in table.columns] == [
        ("instrument", "linear"),
        ("instrument", "knn"),
        ("drums", "linear"),
    ]
    cells = {row.encoder: [(cell.text, cell.is_best) for cell in row.cells] for row in table.rows}
    assert cells["Pre-trained"] == [("80.0 ± 1.0", True), ("70.0 ± 1.0", True), ("50.0", False)]
    assert cells["Mean log-mel"] == [("60.0 ± 1.0", False), ("not measured", False), ("55.0", True)]


@pytest.mark.parametrize(
    ("own", "rivals", "ci95", "told"),
    [
        (0.8, (0.7, 0.75), 0.01, "in 1 of 1 columns, in 1 of them with intervals that do not overlap"),
        (0.8, (0.7, 0.79), 0.01, "in 1 of 1 columns, in 0 of them"),
        (0.8, (0.7, 0.81), 0.01, "in 0 of 1 columns."),
        (0.8, (0.7,), None, "leaves chance open"),
        (0.8, (), 0.01, "No baseline was measured"),
    ],
)
def test_verdict_says_what_the_baselines_allow(own, rivals, ci95, told):
    scores = [entry("pretrained", own, ci95=ci95)]
    scores += [entry(f"rival{number}", mean, ci95=ci95) for number, mean in enumerate(rivals)]
    assert told in verdict(scores)


def test_curve_takes_the_lines_that_have_a_finite_value():
    metrics = [{"step": 1, "a": 5.0}, {"step": 2}, {"step": 3, "a": float("nan")}, {"step": 4, "a": 7.0}]
    steps, values = curve(metrics, "a")
    assert steps.tolist() == [1, 4]
    assert values.tolist() == [5.0, 7.0]


def test_smooth_is_a_running_mean_without_bias_at_the_ends():
    values = np.arange(40.0)
    smoothed = smooth(values)  # over three values
    assert smoothed[0] == 0.5 and smoothed[-1] == 38.5
    np.testing.assert_allclose(smoothed[1:-1], values[1:-1])
    noise = np.random.default_rng(0).normal(size=2000)
    assert smooth(noise).std() < 0.2 * noise.std()


def test_loss_figure_has_a_panel_per_loss_the_total_first():
    metrics = [{"step": s, "loss_b": 1.0, "loss_m2d": 2.0, "loss": 3.0, "lr": 0.1} for s in range(50)]
    figure = loss_figure(metrics)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Total loss", "M2D loss", "Task loss: b"]
    assert figure.axes[0].lines[-1].get_ydata()[0] == 3.0
    with pytest.raises(ValueError, match="at least one metric"):
        loss_figure([{"step": 1}])


def test_a_long_run_draws_few_points():
    figure = curves_figure([{"step": s, "loss": 1.0} for s in range(100_000)], ["loss"])
    assert all(len(line.get_xdata()) <= 1500 for line in figure.axes[0].lines)


def test_example_figure_shows_three_views_and_greys_the_masked_patches():
    example = masked_example()
    clean, noisy, visible = example_figure(example).axes
    np.testing.assert_array_equal(clean.images[0].get_array(), example.clean)
    np.testing.assert_array_equal(noisy.images[0].get_array(), example.noisy)
    np.testing.assert_array_equal(visible.images[0].get_array(), example.noisy)
    np.testing.assert_array_equal(visible.images[1].get_array()[..., 3] == 1.0, example.is_masked)
    assert clean.images[0].get_clim() == noisy.images[0].get_clim()
    assert visible.images[1].get_extent() == [0.0, 0.12, 0.0, 8.0]
    assert visible.get_title(loc="left") == "Visible patches (33% of 6)"


def test_an_example_without_noise_is_called_so():
    titles = [axes.get_title(loc="left") for axes in example_figure(masked_example(noise=0.0)).axes]
    assert titles[1] == "M2D's view (no noise added)"


@pytest.mark.parametrize(
    ("noisy", "grid", "seconds", "told"),
    [
        ((8, 11), (2, 3), 1.0, "both be"),
        ((8, 12), (3, 3), 1.0, "patch grid"),
        ((8, 12), (2, 3), 0.0, "positive"),
    ],
)
def test_an_example_of_unfitting_shapes_is_refused(noisy, grid, seconds, told):
    with pytest.raises(ValueError, match=told):
        MaskedExample("x", np.zeros((8, 12)), np.zeros(noisy), np.zeros(grid, dtype=bool), seconds)


def test_svg_scales_and_takes_the_text_colour_of_the_page():
    svg = figure_svg(loss_figure([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]), label='a "b" <c>')
    opening = svg[: svg.index(">")]
    assert 'aria-label="a &quot;b&quot; &lt;c&gt;"' in opening
    assert "viewBox" in opening and "width=" not in opening and "height=" not in opening
    assert INK not in svg and "currentColor" in svg and ACCENT in svg
    assert "Total loss" in svg  # text, not outlines
