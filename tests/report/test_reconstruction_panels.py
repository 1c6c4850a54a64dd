"""Figures of reconstructions: what is drawn where, and what the titles say."""

import numpy as np
import pytest
from m2dx_draw.masks import PatchMask
from m2dx_draw.panels import numbered
from m2dx_draw.reconstruction import Reconstruction, draw_reconstructions, reconstruction_figure
from matplotlib.collections import LineCollection

from m2dx.report.style import Span


def item(title, *, seed=0, own_scale=False):
    rng = np.random.default_rng(seed)
    logmel = np.random.default_rng(9).normal(size=(8, 12)).astype(np.float32)
    is_masked = np.array([[True, False, True], [True, True, False]])
    visible = np.kron(~is_masked, np.ones((4, 4), dtype=bool))
    result = np.where(visible, logmel, logmel + rng.normal(size=(8, 12)).astype(np.float32))
    return Reconstruction("whale.wav", title, logmel, result, is_masked, Span(0.6, (50.0, 8000.0)), own_scale)


def panels(figure):
    """Title and image of each panel, the scale of errors left out."""
    found = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    return {axes.get_title(loc="left"): axes for axes in found}


def image(axes):
    return np.asarray(axes.images[0].get_array())


def test_input_reconstruction_and_error_are_drawn_as_they_are():
    drawn = item("mask ratio 0.6")
    axes = panels(draw_reconstructions([[drawn]]))
    title = f"error: MSE {np.mean((drawn.result - drawn.logmel) ** 2):.3f}, masked {drawn.masked_mse:.3f}"
    assert list(axes) == ["whale.wav", "mask ratio 0.6", title]
    for panel, values in zip(axes.values(), (drawn.logmel, drawn.result, drawn.error), strict=True):
        np.testing.assert_array_equal(image(panel), values)
        assert panel.images[0].origin == "lower"
    assert axes["whale.wav"].images[0].get_clim() == axes["mask ratio 0.6"].images[0].get_clim()


def test_darker_is_a_higher_error_on_one_scale_that_begins_at_zero():
    axes = panels(draw_reconstructions([[item("a"), item("b", seed=1)], [item("c", seed=2)]]))
    errors = [panel for title, panel in axes.items() if title.startswith("error")]
    limits = {panel.images[0].get_clim() for panel in errors}
    assert len(errors) == 3 and len(limits) == 1 and limits.pop()[0] == 0.0
    brightness = errors[0].images[0].cmap([0.0, 0.5, 1.0])[:, :3].sum(axis=1)
    assert brightness[0] > brightness[1] > brightness[2]


def test_visible_patches_and_no_others_are_outlined_in_white():
    for outline in (True, False):
        panel = panels(draw_reconstructions([[item("a")]], outline=outline))["a"]
        squares = [c for c in panel.collections if isinstance(c, LineCollection)]
        assert len(squares) == int(outline)
    (lines,) = panels(draw_reconstructions([[item("a")]]))["a"].collections
    corners = {(round(path.vertices[0][0], 6), round(path.vertices[0][1], 6)) for path in lines.get_paths()}
    assert corners == {
        (0.2, 0.0),
        (0.4, 0.5),
    }  # patches (0, 1) and (1, 2), in seconds and shares of the height
    assert np.allclose(lines.get_colors(), 1.0)


def test_more_than_three_reconstructions_go_on_below():
    blocks = [[item(f"{n}", seed=n) for n in range(5)], [item("one", seed=7)]]
    axes = panels(draw_reconstructions(blocks))
    place = {
        title: (panel.get_subplotspec().rowspan.start, panel.get_subplotspec().colspan.start)
        for title, panel in axes.items()
    }
    assert [place[f"{n}"] for n in range(5)] == [(0, 1), (0, 2), (0, 3), (2, 1), (2, 2)]
    assert place["one"] == (4, 1)
    errors = [where for title, where in place.items() if title.startswith("error")]
    assert errors == [(1, 1), (1, 2), (1, 3), (3, 1), (3, 2), (5, 1)]


def test_the_reader_is_told_where_the_scale_is_the_inputs_own():
    told = draw_reconstructions([[item("a"), item("b", own_scale=True)]])
    assert "mean and spread" in told._supxlabel.get_text()
    assert draw_reconstructions([[item("a")]])._supxlabel is None


def test_attempts_are_numbered():
    masks = [PatchMask(seed=0), PatchMask(seed=1), PatchMask("vertical")]
    assert numbered([mask.title((5, 19)) for mask in masks], ", attempt {}") == [
        "mask ratio 0.75, attempt 1",
        "mask ratio 0.75, attempt 2",
        "vertical",
    ]


def test_a_figure_of_sounds_and_masks_has_them_all(model, sound):
    masks = [PatchMask(pattern) for pattern in ("vertical", "horizontal", "chessboard")]
    axes = panels(reconstruction_figure(model, [sound], masks))
    assert next(iter(axes)) == "rising" and {"vertical", "horizontal", "chessboard"} < set(axes)
    expected = model.reconstruct(sound, masks[2])
    np.testing.assert_array_equal(image(axes["chessboard"]), expected.result)
    assert f"error: MSE {expected.mse:.3f}, masked {expected.masked_mse:.3f}" in axes


def test_nothing_to_draw_is_refused():
    for blocks in ([], [[item("a")], []]):
        with pytest.raises(ValueError, match="at least one reconstruction"):
            draw_reconstructions(blocks)
