"""The rows of the table of `m2dx classify`, in a few minutes of audio at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

import m2dx
from m2dx.contract.progress import Progress
from m2dx.encoder.files import UnreadableFiles, by_clip, read_parts


def classify_clips(
    classifier: m2dx.AudioClassifier,
    clips: Sequence[m2dx.Clip],
    *,
    whole: bool,
    bad: UnreadableFiles,
    progress: Progress,
) -> Iterator[list[object]]:
    """Rows of a table, the header first: path, start and end (s), the most probable label, each one's probability.

    A row is of the first `unit_seconds` of a clip, or with `whole` of each part of that length. Clips that cannot be
    read go to `bad` with the reason. Raises CheckpointError for probabilities that are not finite.
    """
    yield ["path", "start", "end", "label", *classifier.label_names]
    encoder, unit = classifier.network.encoder, classifier.unit_samples
    seconds, least = unit / encoder.sample_rate, encoder.logmel.hop_length

    def cut(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        parts = islice(_in_lengths(pieces, unit, least), None if whole else 1)
        return (part if part.shape[-1] >= least else classifier.filled(part) for part in parts)

    patches = encoder.encoder.grid.shape[0] * encoder.frame_rate / encoder.sample_rate
    for clip, rows in by_clip(
        read_parts(clips, cut, encoder, bad, progress), classifier.probabilities, patches
    ):
        found = list(rows)  # of a clip that fails on the way, nothing is written
        for number, row in enumerate(() if clip.failed else found):
            start = clip.start + number * seconds
            times = (f"{time:.3f}" for time in (start, min(start + seconds, clip.end)))
            label = classifier.label_names[int(row.argmax())]
            yield [clip.path, *times, label, *(f"{value:.4f}" for value in row)]


def _in_lengths(pieces: Iterable[Tensor], length: int, least: int) -> Iterator[Tensor]:
    """The samples (1, N) of pieces in parts of a length, the last one shorter; below `least` only where it is alone."""
    held: tuple[Tensor, ...] = ()
    number = 0
    for piece in pieces:
        parts = torch.cat((*held, piece), dim=-1).split(length, dim=-1)
        yield from parts[:-1]
        held, number = parts[-1:], number + len(parts) - 1
    yield from (part for part in held if part.shape[-1] >= least or not number)
