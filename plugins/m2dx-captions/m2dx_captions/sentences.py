"""Vectors of sentences: from a file, from a model's folder and a cache on disk, or from the words alone."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from hashlib import shake_128
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import m2dx
from m2dx.contract.atomic import replace_file
from m2dx.data.tables import Table
from m2dx.encoder.weights import read_tensors, tensors_writer

logger = logging.getLogger(__name__)

Source = Literal["words"] | Path
"""`words`, a .csv or .npz file of vectors, or the folder of a model."""
WORDS = 512
"""Width of the vectors of `words`."""
LEFT_OUT = {"a", "an", "and", "of", "the"}
"""Words of `words` that say nothing of a sound."""
SAME = 1 - 1e-4
"""Cosine from which on two texts say the same."""
TEXTS_AT_ONCE, MOST_SHOWN = 64, 3


class Sentences:
    """Vectors of norm 1 of any texts. Those that a model gives are kept in `cache`, by text and model.

    RecipeError where the source is none, or lacks a text; PluginError where a model's library is not installed.
    """

    by_path = False  # whether the source has vectors by the path of a clip, in the place of texts

    def __init__(self, source: Source | str, *, cache: Path | None = None) -> None:
        self.source = path = Path(source)
        self.encode: Callable[[list[str]], Tensor] | None = None  # of a file: what it lacks has no vector
        self.known: dict[str, Tensor] = {}
        self.store: Path | None = None
        if source == "words":  # whatever the working folder has by this name
            self.encode = _hashed
            return
        if path.suffix in (".csv", ".npz") and path.is_file():
            found = _read_table(path) if path.suffix == ".csv" else _read_arrays(path)
            self.by_path = "text" not in found
            self._keep([str(key) for key in found.get("text", found.get("path", ()))], found.get("features"))
        elif not path.is_dir():
            raise m2dx.RecipeError(
                f"`sentences` must be `words`, a .csv or .npz file, or the folder of a model, but {path} is none"
            )
        else:
            self.encode = partial(_encode, path)
            if cache is not None:
                self.store = cache / f"{path.name}-{_digest(path)[:32]}.safetensors"
                self.known = self._stored(self.store)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """(n, C) float32, on the CPU."""
        if lacking := [text for text in dict.fromkeys(texts) if text not in self.known]:
            if self.encode is None:
                raise m2dx.RecipeError(
                    f"`sentences`: {self.source} must have a vector of each text, but lacks {len(lacking)} of "
                    f"{len(set(texts))}, such as {', '.join(map(repr, lacking[:MOST_SHOWN]))}; add them, or give the "
                    "folder of a model"
                )
            # A run that finds all vectors in the cache draws no random numbers for a model either.
            with torch.random.fork_rng(devices=[]), torch.inference_mode():
                found = self.encode(lacking).float().cpu().numpy()
            self._keep(lacking, found)
            if self.store is not None:
                write = tensors_writer(
                    {"vectors": torch.stack(list(self.known.values()))},
                    {"texts": json.dumps(list(self.known))},
                )
                try:
                    replace_file(self.store, write, shared=True)
                except OSError as error:
                    logger.warning("vectors of sentences are not kept: %s", error)
        return torch.stack([self.known[text] for text in texts])

    @property
    def width(self) -> int:
        """C."""
        return self.vectors([next(iter(self.known), "sound")]).shape[1]

    def _keep(self, texts: Sequence[str], vectors: Any) -> None:
        if getattr(vectors, "ndim", 0) != 2 or not 0 < len(texts) == len(vectors):
            raise m2dx.RecipeError(
                f"`sentences`: {self.source} must have `text` or `path`, and for each a vector of `features` (columns "
                "f0, f1, ... of .csv), but has not"
            )
        if several := [text for text, count in Counter(texts).items() if count > 1]:
            raise m2dx.RecipeError(
                f"`sentences`: {self.source} must have one vector of each text or path, but has several of "
                f"{', '.join(map(repr, several[:MOST_SHOWN]))}"
            )
        for text, vector in zip(texts, torch.from_numpy(np.array(vectors, np.float32)), strict=True):
            if not vector.isfinite().all() or not vector.any():
                must = "must be finite, and not all 0, but is not"
                raise m2dx.RecipeError(f"`sentences`: the vector of {text!r} by {self.source} {must}")
            self.known[text] = F.normalize(vector, dim=0)

    @staticmethod
    def _stored(store: Path) -> dict[str, Tensor]:
        try:
            tensors, about = read_tensors(store) if store.exists() else ({"vectors": ()}, {"texts": "[]"})
            return dict(zip(json.loads(about["texts"]), tensors["vectors"], strict=True))
        except (m2dx.CheckpointError, KeyError, ValueError) as error:
            logger.warning("vectors of sentences are computed again, since %s", error)
            return {}


def _read_table(file: Path) -> Mapping[str, Any]:
    table = Table.read(file)
    features = [name for name in table.names if name[:1] == "f" and name[1:].isdigit()]
    rows = table.rows(lambda row: (row, [float(row[name]) for name in features]))
    found: dict[str, Any] = {
        name: [row[name] for row, _ in rows] for name in table.names if name not in features
    }
    return found | {"features": np.array([values for _, values in rows])}


def _read_arrays(file: Path) -> Mapping[str, Any]:
    what = f"`sentences`: {file} must be an .npz file without objects"
    with m2dx.RecipeError.blaming(what), np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest.update(
                f"{path.relative_to(folder)} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode()
            )
    return digest.hexdigest()


def _hashed(texts: list[str]) -> Tensor:
    """(n, WORDS): each word is as many signs, +1 or -1, that follow from its SHAKE-128, and a text their sum.

    Words are all letters and digits that stand together, in any case. `LEFT_OUT` count where a text has nothing else.
    """

    @cache
    def signs(word: str) -> NDArray[np.float32]:
        bits = np.unpackbits(np.frombuffer(shake_128(word.encode()).digest(WORDS // 8), np.uint8))
        return 2 * bits.astype(np.float32) - 1

    vectors = np.zeros((len(texts), WORDS), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        words = re.findall(r"\w+", text.lower())
        for word in [word for word in words if word not in LEFT_OUT] or words:
            vector += signs(word)
    return torch.from_numpy(vectors)


def _encode(folder: Path, texts: list[str]) -> Tensor:
    """(n, C), by sentence-transformers where the folder is one of its models, else the mean of transformers' tokens."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if (folder / "modules.json").is_file():
        model = _library("sentence_transformers").SentenceTransformer(str(folder), device=device)
        return torch.from_numpy(np.asarray(model.encode(texts, batch_size=TEXTS_AT_ONCE)))
    library, parts = _library("transformers"), []
    with m2dx.CheckpointError.blaming(f"`sentences`: {folder} is no model of transformers"):
        tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = library.AutoModel.from_pretrained(folder, local_files_only=True).eval().to(device)
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[first : first + TEXTS_AT_ONCE]
            tokens = tokenizer(some, padding=True, truncation=True, return_tensors="pt").to(device)
            hidden, mask = network(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
            parts.append((hidden * mask).sum(1) / mask.sum(1))  # (B, K, C) -> (B, C)
    return torch.cat(parts)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise m2dx.PluginError(
            f"`sentences` is a model of {package}, which must be installed, but is not: pip install "
            f"'m2dx-captions[{package}]'; or give a file of vectors"
        ) from error
