"""Figures of the page: curves, and what masking leaves of a clip."""

import base64
import re
import struct

import numpy as np
from matplotlib.figure import Figure
from report_pages import CLEAN, IS_MASKED, NOISE, masked_example

from m2dx.report.curves import curve, draw_metric, runs_figure, smooth
from m2dx.report.saving import MOST_COLUMNS, panel_svg, strip_svg
from m2dx.report.style import ACCENT, INK, Picture, draw_logmel, set_title, shade_patches
from m2dx.results.run_folder import RunFolder


def drawn(draw, *arguments):
    axes = Figure().add_subplot()
    draw(axes, *arguments)
    return axes


def image(axes, number=0):
    return np.asarray(axes.images[number].get_array())


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


def test_a_figure_has_a_panel_per_loss_the_total_first():
    metrics = [{"step": s, "loss_b": 1.0, "loss_m2d": 2.0, "loss": 3.0} for s in range(50)]
    figure = runs_figure([RunFolder("a", "", tuple(metrics), None, (), (), (), {})])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Total loss", "M2D loss", "Task loss: b"]
    assert figure.axes[0].lines[-1].get_ydata()[0] == 3.0


def test_a_long_name_is_cut_in_a_title():
    axes = drawn(set_title, f"Task loss: {'x' * 100}")
    assert axes.get_title(loc="left") == f"Task loss: {'x' * 10}…{'x' * 21}"
    svg = panel_svg(Picture(f"Task loss: {'x' * 100}", lambda axes: None))
    assert f">Task loss: {'x' * 4}…{'x' * 15}<" in svg


def test_a_single_step_has_a_single_tick():
    assert drawn(draw_metric, [{"step": 18, "rankme": 33.0}], "rankme").get_xticks().tolist() == [18]


def test_a_long_run_draws_few_points():
    axes = drawn(draw_metric, [{"step": s, "loss": 1.0} for s in range(100_000)], "loss")
    assert len(axes.lines) == 2 and all(len(line.get_xdata()) <= 1500 for line in axes.lines)


def test_an_example_has_three_views_and_its_masked_patches_are_grey():
    (pictures,) = masked_example().strips.values()
    titles = ["Clean", "With noise: what is given", "Visible patches (33% of 6)"]
    assert [picture.title for picture in pictures] == titles
    clean, noisy, visible = (drawn(picture.draw) for picture in pictures)
    np.testing.assert_array_equal(image(clean), CLEAN)
    np.testing.assert_array_equal(image(noisy), CLEAN + NOISE)
    np.testing.assert_array_equal(image(visible), CLEAN + NOISE)
    np.testing.assert_array_equal(image(visible, 1)[..., 3] == 1.0, IS_MASKED)
    assert clean.images[0].get_clim() == noisy.images[0].get_clim()
    assert visible.images[1].get_extent() == [0.0, 0.12, 0.0, 8.0]


def test_an_example_without_noise_is_shown_once():
    (pictures,) = masked_example(noise=0.0).strips.values()
    assert [picture.title[:7] for picture in pictures] == ["Clean", "Visible"]


def test_low_frequencies_are_at_the_bottom():
    image = drawn(lambda axes: draw_logmel(axes, np.eye(3), seconds=1.0)).images[0]
    assert image.origin == "lower" and image.get_extent() == [0.0, 1.0, 0.0, 3.0]


def test_long_spectrograms_stay_small_on_the_page():
    values = np.random.default_rng(0).normal(size=(80, 3000))
    svg = strip_svg(Picture("a", lambda axes: draw_logmel(axes, values, seconds=30.0)))
    ((width, height),) = sizes_of_pngs(svg)
    assert width <= MOST_COLUMNS and height == 80 and len(svg) < 120_000

    def draw(axes):
        draw_logmel(axes, values[:, :10], seconds=1.0)
        shade_patches(axes, np.ones((5, 400)), colour="black")

    assert sizes_of_pngs(strip_svg(Picture("a", draw))) == [(10, 80), (400, 5)]


def sizes_of_pngs(svg):
    found = re.findall(r'"data:image/png;base64,([^"]*)"', svg)
    return [struct.unpack(">II", base64.b64decode(data)[16:24]) for data in found]


def test_svg_scales_and_takes_the_text_colour_of_the_page():
    metrics = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    svg = panel_svg(Picture("Total loss", lambda axes: draw_metric(axes, metrics, "loss"), 'a "b" <c>'))
    opening = svg[: svg.index(">")]
    assert 'aria-label="a &quot;b&quot; &lt;c&gt;"' in opening
    assert "viewBox" in opening and "width=" not in opening and "height=" not in opening
    assert INK not in svg and "currentColor" in svg and ACCENT in svg
    assert "Total loss" in svg  # text, not outlines
