"""Figures of the page: curves, and what masking leaves of a clip."""

import numpy as np
import pytest
from report_pages import masked_example

from m2dx.report.figures import (
    ACCENT,
    INK,
    MaskedExample,
    curve,
    curves_figure,
    example_figure,
    figure_svg,
    loss_figure,
    smooth,
)


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


def test_a_long_name_is_cut_in_a_title():
    figure = curves_figure([{"step": 1, "loss_" + "x" * 100: 1.0}], ["loss_" + "x" * 100])
    assert figure.axes[0].get_title(loc="left") == f"Task loss: {'x' * 20}…"


def test_a_single_step_has_a_single_tick():
    (axes,) = curves_figure([{"step": 18, "rankme": 33.0}], ["rankme"]).axes
    assert axes.get_xticks().tolist() == [18]


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
    assert titles[1] == "What is given (no noise)"


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
