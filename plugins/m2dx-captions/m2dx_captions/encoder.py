"""The captions of clips as vectors, looked up while the training runs."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import m2dx
from m2dx.data.containers import is_there, origin_of
from m2dx.data.csv_list import CsvDataset
from m2dx.data.tables import Table
from m2dx_captions.sentences import Sentences, Source

logger = logging.getLogger(__name__)

MANY = 64
"""Crops without a caption, from the first on, after which a warning says so."""
MOST_ALIKE = 0.1
"""Share of the different captions that may have the vector of another one, without a warning."""
Place = tuple[str, int, int | None]
"""Path, start and duration, ms, of a clip; None: to the end of the file."""
Captioned = dict[Place, tuple[str, ...]]


class Captions(m2dx.OfflineEncoder):
    """A sentence vector for each clip, (B, C), of norm 1: the mean of its captions' ones; NaN rows without a caption.

    A caption belongs to the clip with its path, start and duration, or to all clips of its file where the list gives
    neither; a clip in a pack has those of what was packed. All vectors are made before the training starts.

    Options:
        sentences: `words`; a .csv or .npz file of vectors by text, or by the path of a clip; or the folder of a model
        path: the list with the captions, such as that of the data set; not for vectors by the path of a clip
        column: of the list that has the captions; several of a clip in several lines, or separated by `;`
        root: folder that the paths are relative to; default the folder of the list; of vectors by path their folder, or
            for files that are not there the working folder
        cache: folder for the vectors that a model gives; default `sentence-vectors` beside the list
    """

    name = "captions"
    wants_crops = True
    vectors: Tensor

    def __init__(
        self,
        *,
        sentences: Source,
        path: Path | None = None,
        column: str = "caption",
        root: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        """RecipeError and AudioError where list, column or vectors are not there."""
        super().__init__()
        source = Sentences(sentences, cache=cache or (path and path.parent / "sentence-vectors"))
        if source.by_path == (path is not None):
            must = "be left out for vectors by path" if source.by_path else "name the list of captions"
            raise m2dx.RecipeError(f"`path` must {must}, but is {path or 'left out'}")
        if path is None:
            captions: Captioned = _by_path(source, root)
        else:
            captions = _captions(path, column, root)
            _tell_alike(source, list({text: None for texts in captions.values() for text in texts}))
        means = {texts: number for number, texts in enumerate(dict.fromkeys(captions.values()))}
        self.rows = {place: means[texts] for place, texts in captions.items()}
        vectors = torch.stack([F.normalize(source.vectors(texts).mean(0), dim=0) for texts in means])
        self.embed_dim = vectors.shape[1]
        nothing = torch.full((1, self.embed_dim), torch.nan)  # the last row, -1
        self.register_buffer("vectors", torch.cat([vectors, nothing]), persistent=False)
        self.files = {place[0] for place in captions}
        self.packed: dict[Place, int] = {}  # rows of clips in packs, by what these were made of
        self.asked, self.found, self.told = 0, 0, False

    def forward(self, views: m2dx.Views) -> Tensor:
        if views.crops is None:  # a trial on noise
            return self.vectors[:1].expand(len(views.clean_logmel), -1)
        rows = [self._row(crop.clip) for crop in views.crops]
        if self.found == 0 and self.asked < MANY:
            self.asked, self.found = self.asked + len(rows), sum(row >= 0 for row in rows)
            if self.found == 0 and self.asked >= MANY:
                logger.warning(
                    "none of the first %d crops has a caption, such as one of %s; do path, start and duration of the "
                    "captions fit those of the training?", self.asked, views.crops[0].clip.path
                )  # fmt: skip
        return self.vectors[torch.tensor(rows, device=self.vectors.device)]

    def _row(self, clip: m2dx.Clip) -> int:
        place = _place(clip.path, clip.start, clip.duration)
        row = self.rows.get(place, self.rows.get((place[0], 0, None), self.packed.get(place, -1)))
        if row < 0 and place not in self.packed and (origin := origin_of(clip)) is not None:
            row = self.packed[place] = self._row(origin)
        if row < 0 and place[1:] == (0, None) and place[0] in self.files and not self.told:
            self.told = True
            logger.warning(
                "%s has captions of segments alone, but the training has the whole file, which gets none; leave out "
                "start and duration in the list of captions, or give them in that of the training", clip.path
            )  # fmt: skip
        return row


def _by_path(source: Sentences, root: Path | None) -> Captioned:
    """The files of vectors by path. `m2dx encode` writes paths as it is given them, relative to the working folder."""
    folders = (source.source.parent, Path()) if root is None else (root,)
    files = {
        key: next(filter(is_there, [folder / key for folder in folders]), folders[0] / key)
        for key in source.known
    }
    _check_there(str(source.source), list(files.values()))
    return {_place(file): (key,) for key, file in files.items()}


def _check_there(what: str, files: Sequence[Path]) -> None:
    """Warns of files that are not there; RecipeError where none is."""
    absent = [file for file in files if not is_there(file)]
    if len(absent) == len(files):
        raise m2dx.RecipeError(
            f"{what} must have paths of files that are there, but has none of {len(files)}, such as {absent[0]}; "
            "`root` is the folder that its paths are relative to"
        )
    if absent:
        logger.warning(
            "%d of %d files of %s are not there, such as %s", len(absent), len(files), what, absent[0]
        )


def _tell_alike(source: Sentences, texts: Sequence[str]) -> None:
    """Makes the vectors of all texts at once, and warns where many different ones have the same."""
    alike: dict[bytes, list[str]] = defaultdict(list)
    for text, vector in zip(texts, source.vectors(texts).numpy().round(4) + 0.0, strict=True):  # no -0.0
        alike[vector.tobytes()].append(text)
    shared = [of_one for of_one in alike.values() if len(of_one) > 1]
    if (count := sum(map(len, shared))) > MOST_ALIKE * len(texts):
        logger.warning(
            "%d of %d different captions have the same vector as another one by %s, such as %r and %r: they are one "
            "caption for the training", count, len(texts), source.source, *shared[0][:2]
        )  # fmt: skip


def _captions(path: Path, column: str, root: Path | None) -> Captioned:
    names = Table.read(path, delimiter="\t" if path.suffix == ".tsv" else None).names
    if column not in names:
        raise m2dx.RecipeError(
            f"{path}:1: there must be a column `{column}`, which `column` names, but there are: {', '.join(names)}"
        )
    dataset = CsvDataset(path=path, root=root, labels=column)
    clips = [clip for clip in dataset.clips() if clip.labels]
    if not clips:
        raise m2dx.RecipeError(f"{path}: the column `{column}` must have captions, but is empty in all lines")
    _check_there(str(path), list(dict.fromkeys(clip.path for clip in clips)))
    texts: defaultdict[Place, dict[str, None]] = defaultdict(dict)
    for clip in clips:  # one for each of its groups and splits
        texts[_place(clip.path, clip.start, clip.duration)].update(dict.fromkeys(clip.labels))
    return {place: tuple(of) for place, of in texts.items()}


def _place(path: Path, start: float = 0.0, duration: float | None = None) -> Place:
    return os.path.abspath(path), round(start * 1000), None if duration is None else round(duration * 1000)
