"""A fine-tuned network: audio to probabilities of labels."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m2dx.contract.errors import AudioError, CheckpointError
from m2dx.data.reading import read_wav
from m2dx.encoder.audio import load_encoder
from m2dx.encoder.config import EXPORT_CONFIG, read_export_config
from m2dx.encoder.finetuned import CLASSIFIER, HEAD, FinetunedNetwork
from m2dx.encoder.weights import EXPORT_WEIGHTS, read_tensors
from m2dx.recipe.schema import ShortClips


class AudioClassifier(nn.Module):
    """A network that the evaluator `finetune` trained: audio to scores of labels.

    Attributes: `sample_rate` (Hz, of the audio it wants), `label_names`, `multi_label` (whether several labels may be
    true at a time), `unit_seconds` (length of audio that it was trained on), `short_clips` ("pad" or "repeat").
    """

    def __init__(
        self,
        network: FinetunedNetwork,
        label_names: Sequence[str],
        *,
        multi_label: bool,
        unit_seconds: float,
        short_clips: ShortClips,
    ) -> None:
        super().__init__()
        self.network, self.label_names = network, tuple(label_names)
        self.multi_label, self.unit_seconds, self.short_clips = multi_label, unit_seconds, short_clips
        self.sample_rate = network.encoder.sample_rate

    def forward(self, wav: Tensor) -> Tensor:
        """Logits (B, C), from samples (B, N) or (N,) at `sample_rate`, as the evaluator's test makes them.

        Longer audio is cut to its first `unit_seconds`; shorter audio is padded or repeated to that length.
        """
        rows = wav[None] if wav.ndim == 1 else wav
        length = max(1, round(self.unit_seconds * self.sample_rate))
        if rows.shape[-1] > length:
            rows = rows[..., :length]
        elif 0 < rows.shape[-1] < length and self.short_clips == "repeat":
            rows = rows.repeat(1, -(-length // rows.shape[-1]))[..., :length]
        elif 0 < rows.shape[-1] < length:
            rows = nn.functional.pad(rows, (0, length - rows.shape[-1]))
        logits: Tensor = self.network(self.network.encoder.standard_logmel(rows))
        return logits

    @torch.no_grad()
    def probabilities(self, wav: Tensor) -> Tensor:
        """Probabilities (B, C) of the labels, as `forward`: of each by itself if `multi_label`, else they sum to 1."""
        logits = self(wav)
        found: Tensor = logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
        return found


def load_classifier(path: str | Path) -> AudioClassifier:
    """The network in a folder that the evaluator `finetune` saved (`save_dir`), in eval mode, on the CPU.

    Raises CheckpointError where the folder is missing, corrupt or something else. `m2dx.load_encoder` reads such a
    folder, too, and gives the fine-tuned encoder without the classifier.
    """
    path = Path(path)
    config = _config(path)
    encoder = load_encoder(path, long_clips=config["long_clips"])
    about = config[CLASSIFIER]
    network = FinetunedNetwork(
        encoder,
        len(about["label_names"]),
        patchout=config["patchout"],
        adjust_positions=config["long_clips"] == "interpolate",
    )
    head = {
        name.removeprefix(HEAD): tensor
        for name, tensor in read_tensors(path / EXPORT_WEIGHTS)[0].items()
        if name.startswith(HEAD)
    }
    try:
        network.head.load_state_dict(head)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: the classifier's weights do not fit: {error}") from error
    keys = ("multi_label", "unit_seconds", "short_clips")
    classifier = AudioClassifier(network, about["label_names"], **{key: about[key] for key in keys})
    return classifier.requires_grad_(False).eval()


def _config(path: Path) -> dict[str, Any]:
    if not (path / EXPORT_CONFIG).is_file():
        raise CheckpointError(
            f"{path} must be a folder with a fine-tuned network, but has no {EXPORT_CONFIG}; the evaluator finetune "
            "writes such folders into its save_dir"
        )
    config = read_export_config(path)
    about = config.get(CLASSIFIER)
    if about is None:
        raise CheckpointError(
            f"{path} must be a fine-tuned network, but is an encoder without a classifier; the evaluator finetune "
            "trains one, and saves it where save_dir is given"
        )
    wanted = {"label_names", "multi_label", "unit_seconds", "short_clips"}
    missing = [*({"long_clips", "patchout"} - config.keys()), *(wanted - about.keys())]
    if missing:
        raise CheckpointError(
            f"{path / EXPORT_CONFIG}: not a fine-tuned network: it lacks {', '.join(sorted(missing))}"
        )
    return config


@dataclass(frozen=True)
class ClassifiedStretch:
    """A stretch of a file with its probabilities."""

    path: Path
    start: float  # seconds
    end: float
    probabilities: NDArray[np.float32]  # (C,)


def classify_files(
    classifier: AudioClassifier, paths: Sequence[Path], *, whole: bool, bad: list[tuple[Path, str]]
) -> Iterator[ClassifiedStretch]:
    """The first `unit_seconds` of each file, or with `whole` all of it, in stretches of that length.

    Files that cannot be read are added to `bad` with the reason.
    """
    rate = classifier.sample_rate
    length = max(1, round(classifier.unit_seconds * rate))
    for path in paths:
        try:
            wav = torch.from_numpy(read_wav(path, sample_rate=rate))
        except AudioError as error:
            bad.append((path, str(error)))
            continue
        stretches = wav.split(length) if whole else (wav[:length],)
        for number, stretch in enumerate(stretches):
            start = number * length / rate
            found = classifier.probabilities(stretch)[0].numpy()
            yield ClassifiedStretch(path, start, start + len(stretch) / rate, found)


def write_table(found: Iterable[ClassifiedStretch], label_names: Sequence[str], file: TextIO) -> int:
    """A CSV row per stretch: path, start and end (s), the most probable label, and each one's probability.

    Returns the number of files.
    """
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["path", "start", "end", "label", *label_names])
    paths = set()
    for stretch in found:
        best = label_names[int(stretch.probabilities.argmax())]
        times = [f"{stretch.start:.3f}", f"{stretch.end:.3f}"]
        table.writerow([stretch.path, *times, best, *(f"{value:.4f}" for value in stretch.probabilities)])
        paths.add(stretch.path)
    return len(paths)
