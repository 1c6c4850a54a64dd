"""Embeddings: points, classes, and what is said about clips that are left out."""

import logging

import numpy as np
import pytest
import torch
from m2dx_draw.embedding import (
    GREY,
    MARKERS,
    SEVERAL,
    Embedding,
    class_looks,
    embed,
    embedding_figure,
    labelled_clips,
    project,
)
from matplotlib.colors import to_rgba

from m2dx.contract.errors import RecipeError
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import load_encoder


@pytest.fixture
def clip_list(tmp_path, make_wav):
    """Writes a CSV of `labels`, a noise file for each."""

    def write(*labels, header="path,label,split"):
        rows = [header]
        for number, label in enumerate(labels):
            make_wav(f"{number}.wav", seconds=0.3 + 0.1 * (number % 2), seed=number)
            rows.append(f"{number}.wav,{label},{'test' if number % 2 else 'train'}")
        path = tmp_path / "list.csv"
        path.write_text("\n".join(rows) + "\n")
        return CsvDataset(path=path)

    return write


def test_principal_components_are_those_of_the_covariance():
    x = np.random.default_rng(0).normal(size=(50, 4)) * [5.0, 1.0, 3.0, 0.1]
    points, axes = project(torch.from_numpy(x), method="pca", seed=0)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    expected = (x - x.mean(0)) @ vectors[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-8)
    assert axes == tuple(f"component {n} ({values[-n] / values.sum():.0%})" for n in (1, 2))


@pytest.mark.parametrize("count", [3, 40])
def test_tsne_is_the_same_each_time_and_keeps_clusters_apart(count):
    x = np.random.default_rng(0).normal(size=(count, 8))
    x[: count // 2] += 20.0
    points, _ = project(torch.from_numpy(x), method="tsne", seed=3)
    assert points.shape == (count, 2) and np.isfinite(points).all()
    np.testing.assert_array_equal(points, project(torch.from_numpy(x), method="tsne", seed=3)[0])
    if count > 3:
        near, far = points[: count // 2], points[count // 2 :]
        gap = np.linalg.norm(near.mean(0) - far.mean(0))
        assert gap > 2 * max(near.std(0).max(), far.std(0).max())


def test_clips_of_a_list_are_taken_with_their_classes_and_mean_length(clip_list):
    task = labelled_clips("list", clip_list("a", "b", "a", "b;c"))
    assert task.label_names == ("a", "b", "c") and len(task.clips) == 4
    assert task.unit_seconds == pytest.approx(0.35)
    dataset = clip_list(*"abcabc")
    dataset.path.write_text(dataset.path.read_text().replace("test", "Testing"))
    for split in ("Testing", "test"):  # as the list has it, and as it is taken
        clips = labelled_clips("l", dataset, split=split).clips
        assert [clip.labels for clip in clips] == [("b",), ("a",), ("c",)]


def test_what_is_left_out_is_said(clip_list, tmp_path, caplog):
    dataset = clip_list("a", "b", "a", "b", "")
    (tmp_path / "0.wav").unlink()
    (tmp_path / "1.wav").write_bytes(b"not audio")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(RecipeError, match=r"at least 3 labelled clips .* but has 2"),
    ):
        labelled_clips("list", dataset)
    assert "1 of 5 clips have no label" in caplog.text
    assert "2 clips cannot be read" in caplog.text and "0.wav: missing" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        some = labelled_clips("list", clip_list(*"abcdefgh"), most=4, seed=1)
    assert "4 of 8 clips are drawn" in caplog.text and len(some.clips) == 4
    assert some.clips == labelled_clips("list", clip_list(*"abcdefgh"), most=4, seed=1).clips
    assert some.clips != labelled_clips("list", clip_list(*"abcdefgh"), most=4, seed=2).clips
    with pytest.raises(RecipeError, match="no clips in the split 'valid'"):
        labelled_clips("list", clip_list("a", "b"), split="valid")


def test_each_clip_is_the_point_of_its_standardised_features(runs, clip_list):
    encoder = load_encoder(runs / "m2d" / "encoder")
    task = labelled_clips("list", clip_list("a", "b", "a", "b;c", "c"))
    item = embed(encoder, task, title="m2d", method="pca")
    x = task.features(encoder).x.numpy()
    x = (x - x.mean(0)) / x.std(0)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(item.points), np.abs(u[:, :2] * s[:2]), atol=1e-2)
    assert item.labels == ("a", "b", "a", SEVERAL, "c")
    assert item.is_training == (True, False, True, False, True)


def test_a_figure_has_a_panel_for_each_embedding_and_one_legend():
    points = np.arange(12.0).reshape(6, 2)
    labels = ("cat", "dog", "cat", SEVERAL, "_x", "$5")
    items = [Embedding(title, points + n, labels, ("x", "y")) for n, title in enumerate(("one", "two"))]
    figure = embedding_figure(items)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    (legend,) = figure.legends
    assert [text.get_text().lstrip("\u200b") for text in legend.get_texts()] == [
        r"\$5", "_x", "cat", "dog", SEVERAL,
    ]  # fmt: skip
    looks = class_looks(["$5", "_x", "cat", "dog"])
    drawn = {
        tuple(np.round(group.get_facecolor()[0][:3], 3)): np.asarray(group.get_offsets())
        for group in figure.axes[1].collections
    }
    np.testing.assert_array_equal(drawn[tuple(np.round(looks["cat"][0], 3))], (points + 1)[[0, 2]])
    np.testing.assert_array_equal(drawn[tuple(np.round(to_rgba(GREY)[:3], 3))], (points + 1)[[3]])
    figure.draw_without_rendering()


def test_clips_of_the_training_are_hollow_and_the_legend_says_so():
    points = np.arange(8.0).reshape(4, 2)
    item = Embedding("one", points, ("a", "a", "b", "b"), ("x", "y"), (True, False, True, True))
    figure = embedding_figure([item])
    found = {True: [], False: []}
    for group in figure.axes[0].collections:
        is_hollow = not len(group.get_facecolor()) or group.get_facecolor()[0][3] == 0
        found[bool(is_hollow)] += np.asarray(group.get_offsets()).tolist()
    assert sorted(found[True]) == points[[0, 2, 3]].tolist() and found[False] == points[[1]].tolist()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["a", "b"] and len(texts) == 4
    plain = embedding_figure([Embedding("one", points, item.labels, item.axes)])
    assert len(plain.legends[0].get_texts()) == 2


def test_colours_come_again_with_another_marker():
    looks = class_looks([f"{n:02}" for n in range(25)])
    assert len({(str(colour), marker) for colour, marker in looks.values()}) == 26
    assert looks["00"][0] == looks["10"][0] and looks["00"][1] == MARKERS[0] and looks["10"][1] == MARKERS[1]


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one embedding"):
        embedding_figure([])
