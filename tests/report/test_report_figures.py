"""Figures of the page: curves, and what masking leaves of a clip."""

import base64
import re
import struct
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from m2dx_draw.curves import runs_figure
from m2dx_draw.panels import set_title
from matplotlib.figure import Figure
from report_pages import CLEAN, HERTZ, IS_MASKED, NOISE, masked_example

from m2dx.data.logmel import LogMel
from m2dx.report.curves import curve, draw_metric, smooth
from m2dx.report.saving import MOST_COLUMNS, save_figure, svg
from m2dx.report.style import (
    ACCENT,
    INK,
    Picture,
    Span,
    cover_patches,
    draw_grid_image,
    draw_logmel,
)
from m2dx.results.run_folder import RunFolder

SPAN = Span(30.0, HERTZ)


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


@pytest.mark.parametrize(("suffix", "warned"), [("svg", 0), ("png", 1)])
@pytest.mark.filterwarnings("error")
def test_names_that_the_fonts_lack_are_one_warning_where_they_are_boxes(tmp_path, caplog, suffix, warned):
    figure = Figure()
    figure.add_subplot().set(title="猫と犬", xlabel="猫")
    path = save_figure(figure, tmp_path / f"a.{suffix}")
    assert len(caplog.records) == warned and all("猫, と, 犬" in text for text in caplog.messages)
    assert suffix == "png" or "猫と犬" in path.read_text(encoding="utf-8")
    svg(Picture("猫", lambda axes: axes.set_title("猫"), "猫"), "panel")


def test_a_figure_has_a_panel_per_loss_the_total_first():
    metrics = [{"step": s, "loss_b": 1.0, "loss_m2d": 2.0, "loss": 3.0} for s in range(50)]
    figure = runs_figure([RunFolder("a", "", tuple(metrics), None, (), (), (), {})])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Total loss", "M2D loss", "Task loss: b"]
    assert figure.axes[0].lines[-1].get_ydata()[0] == 3.0


def test_a_long_name_is_cut_in_a_title():
    axes = drawn(set_title, f"Task loss: {'x' * 100}")
    assert axes.get_title(loc="left") == f"Task loss: {'x' * 10}…{'x' * 21}"


@pytest.mark.parametrize("steps", [(18,), (1, 18), (10, 1888), (5, 300_000)])
def test_the_axis_of_steps_ends_with_the_last_one_and_is_labelled_there(steps):
    axes = drawn(draw_metric, [{"step": step, "rankme": 33.0} for step in steps], "rankme")
    ticks = axes.get_xticks().tolist()
    assert axes.get_xlim() == (0, steps[-1]) and ticks[0] == 0 and ticks[-1] == steps[-1]
    assert all(after - before > 0.1 * steps[-1] for before, after in pairwise(ticks))


def test_frames_of_panels_are_in_line_whatever_their_numbers():
    def drawn_with(scale):
        metrics = [{"step": step, "lr": scale * step} for step in (1, 9)]
        return svg(Picture("", partial(draw_metric, metrics=metrics, name="lr")), "panel")

    found = [drawn_with(1e-6), drawn_with(1e6)]
    frames = [re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n" clip', text) for text in found]
    assert frames[0] and frames[0] == frames[1]


def test_a_long_run_draws_few_points():
    axes = drawn(draw_metric, [{"step": s, "loss": 1.0} for s in range(100_000)], "loss")
    assert len(axes.lines) == 2 and all(len(line.get_xdata()) <= 1500 for line in axes.lines)


def test_an_example_has_three_views_and_its_masked_patches_are_grey():
    pictures = masked_example().row
    titles = ["Input", "As it is trained on", "Visible: 33%"]
    assert [picture.title for picture in pictures] == titles
    clean, noisy, visible = (drawn(picture.draw) for picture in pictures)
    np.testing.assert_array_equal(image(clean), CLEAN)
    np.testing.assert_array_equal(image(noisy), CLEAN + NOISE)
    np.testing.assert_array_equal(image(visible), CLEAN + NOISE)
    np.testing.assert_array_equal(image(visible, 1)[..., 3] == 1.0, IS_MASKED)
    assert clean.images[0].get_clim() == noisy.images[0].get_clim()
    assert visible.images[1].get_extent() == [0.0, 0.12, 0.0, 1.0]


def test_an_example_without_noise_is_shown_once():
    assert [picture.title[:7] for picture in masked_example(noise=0.0).row] == ["Input", "Visible"]


def test_low_frequencies_are_at_the_bottom():
    image = drawn(lambda axes: draw_logmel(axes, np.eye(3), span=Span(1.0, HERTZ))).images[0]
    assert image.origin == "lower" and image.get_extent() == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("hertz", [(50.0, 8000.0), (0.0, 1000.0), (50.0, 24_000.0)])
def test_frequencies_are_told_in_hertz_where_their_mel_bands_are(hertz):
    logmel = LogMel(
        sample_rate=48_000, n_fft=4096, win_length=4096, hop_length=480, f_min=hertz[0], f_max=hertz[1]
    )
    span = Span.of(logmel, 10)
    axes = drawn(lambda axes: draw_logmel(axes, np.eye(80), span=span))
    heights, texts = axes.get_yticks(), [label.get_text() for label in axes.get_yticklabels()]
    assert span.seconds == 0.1 and len(texts) >= 3
    for height, text in zip(heights, texts, strict=True):
        told = float(text.replace("k", "000"))
        tone = logmel(torch.sin(2 * torch.pi * min(told, 23_900) * torch.arange(48_000) / 48_000)[None])
        band = int(tone[0, 0].mean(-1).argmax())
        assert abs(height * 81 - (band + 1)) < 1.5, text  # 82 corners make 80 bands


def test_ticks_of_frequencies_do_not_touch():
    heights = [height for height, _ in Span(1.0, (0.0, 24_000.0)).ticks]
    assert min(before - after for before, after in pairwise(heights)) > 0.12


def test_long_spectrograms_stay_small_on_the_page():
    values = np.random.default_rng(0).normal(size=(80, 3000))
    for colours in (values, np.stack([values] * 3, axis=-1) % 1.0):
        draw = partial(draw_grid_image, values=colours, span=SPAN, limits=(0, 1))
        text = svg(Picture("a", draw), "strip")
        ((width, height),) = sizes_of_pngs(text)
        assert width <= MOST_COLUMNS and height == 80 and len(text) < 150_000

    def draw(axes):
        draw_logmel(axes, values[:, :10], span=SPAN)
        cover_patches(axes, np.ones((5, 400), dtype=bool))

    assert sizes_of_pngs(svg(Picture("a", draw), "strip")) == [(10, 80), (400, 5)]


def sizes_of_pngs(text):
    found = re.findall(r'"data:image/png;base64,([^"]*)"', text)
    return [struct.unpack(">II", base64.b64decode(data)[16:24]) for data in found]


def test_svg_scales_and_takes_the_text_colour_of_the_page():
    metrics = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    text = svg(Picture("", lambda axes: draw_metric(axes, metrics, "loss"), 'a "b" <c>'), "panel")
    opening = text[: text.index(">")]
    assert 'aria-label="a &quot;b&quot; &lt;c&gt;"' in opening
    assert "viewBox" in opening and "width=" not in opening and "height=" not in opening
    assert INK not in text and "currentColor" in text and ACCENT in text
    assert ">step<" in text  # text, not outlines
