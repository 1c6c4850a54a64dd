"""Random crops of the clips with their labels, noise and masks, the same under a seed whoever loads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from m2dx.contract.components import Clip, Crop, NoiseSource
from m2dx.contract.errors import AudioError, M2dxError, PluginError
from m2dx.data.batches import ItemKey, Stream, seeded_generator
from m2dx.data.clips import ClipList
from m2dx.data.pcm import StoredSamples, float_samples, float_tensor, stack_samples
from m2dx.data.reading import AudioFile

BadFile = tuple[str, str]
"""Path of a file that could not be used, and the reason."""
ShortClips = Literal["pad", "repeat"]
MaskDraw = Callable[[torch.Generator], Tensor]
"""From a generator to `ids_shuffle` (P,), a permutation of the patches whose first part is visible."""

_MOST_TRIES = 100

T = TypeVar("T")


@dataclass(frozen=True)
class CropItem:
    """One item of a batch."""

    wav: Tensor  # (N,) float32, or int16: 16-bit PCM as it is stored
    noise_wav: Tensor | None  # (N,) alike
    labels: dict[str, Tensor]  # (C,) each
    ids_shuffle: Tensor  # (P,)
    clip_id: int
    crop: Crop | None
    bad: tuple[BadFile, ...]
    image: Tensor | None = None  # (C, H, W) uint8; then the wav is empty


@dataclass(frozen=True)
class Batch:
    """What the workers give to one micro-batch."""

    wav: Tensor  # (B, N) float32; from the loader, before `to`, also int16: 16-bit PCM as it is stored
    noise_wav: Tensor | None  # (B, N) alike
    labels: dict[str, Tensor]  # by set: (B, C) multi-hot float32; NaN rows: not labelled
    ids_shuffle: Tensor  # (B, P) int64
    clip_ids: Tensor  # (B,) int64; of the clips that were read, after replacement of bad ones
    bad: tuple[BadFile, ...]  # found while loading this batch; a file may come again in a later one
    crops: tuple[Crop, ...] | None = None  # where the audio is from, if that is wanted
    images: Tensor | None = None  # (B, C, H, W) uint8; then wav is (B, 0)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device, with float32 samples; from pinned memory without waiting for the copy.

        Samples stored as int16 travel as such, and become float32 there: half the bytes, and the same bit for bit.
        """
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        noise = None if moved.noise_wav is None else float_tensor(moved.noise_wav)
        return replace(moved, wav=float_tensor(moved.wav), noise_wav=noise)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; called by DataLoader."""
        return self._map(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keeps the memory of a batch on a GPU from being used anew before the stream's work on it is done."""

        def note(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self._map(note)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            wav=change(self.wav),
            noise_wav=None if self.noise_wav is None else change(self.noise_wav),
            labels={name: change(labels) for name, labels in self.labels.items()},
            ids_shuffle=change(self.ids_shuffle),
            clip_ids=change(self.clip_ids),
            bad=self.bad,
            crops=self.crops,
            images=None if self.images is None else change(self.images),
        )


def collate(items: Sequence[CropItem]) -> Batch:
    """One batch of items, as the model takes it."""
    return collate_stored(items).to("cpu")


def collate_stored(items: Sequence[CropItem]) -> Batch:
    """One batch of items as it travels to a device, by `Batch.to`: with int16 samples where all items have them."""
    noise = [item.noise_wav for item in items if item.noise_wav is not None]
    crops = tuple(item.crop for item in items if item.crop is not None)
    images = [item.image for item in items if item.image is not None]
    return Batch(
        wav=stack_samples([item.wav for item in items]),
        noise_wav=stack_samples(noise) if noise else None,
        labels={name: torch.stack([item.labels[name] for item in items]) for name in items[0].labels},
        ids_shuffle=torch.stack([item.ids_shuffle for item in items]),
        clip_ids=torch.tensor([item.clip_id for item in items]),
        bad=tuple(dict.fromkeys(bad for item in items for bad in item.bad)),
        crops=crops or None,
        images=torch.stack(images) if images else None,
    )


class TrainingCrops(Dataset[CropItem]):
    """Items by `ItemKey`: a crop of the key's clip, its labels, noise if there is a source, and a mask draw.

    The crop's place, the noise and the mask follow from (seed, epoch, position) alone, so that they do not depend
    on workers, processes or a resumed run. A clip that cannot be read is replaced by one drawn from the same
    randomness, and named in `bad`. Raises `AudioError` when 100 clips in a row cannot be read, `PluginError` when
    the noise source breaks its contract.
    """

    def __init__(
        self,
        clips: ClipList,
        *,
        crop_samples: int,
        sample_rate: int,
        seed: int,
        draw_mask: MaskDraw,
        short_clips: ShortClips = "pad",
        noise: NoiseSource | None = None,
        with_crops: bool = False,
    ) -> None:
        """`with_crops`: the items say where their audio is from."""
        self.clips = clips
        self.crop_samples, self.sample_rate, self.short_clips = crop_samples, sample_rate, short_clips
        self.seed, self.draw_mask, self.noise, self.with_crops = seed, draw_mask, noise, with_crops

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: ItemKey) -> CropItem:
        where = {"seed": self.seed, "epoch": key.epoch, "position": key.position}
        clip_id, start, wav, bad = read_any_crop(
            self.clips,
            key.clip_id,
            crop_samples=self.crop_samples,
            sample_rate=self.sample_rate,
            short_clips=self.short_clips,
            generator=seeded_generator(Stream.CROP, **where),
        )
        noise_wav = None
        if self.noise is not None:
            generator = seeded_generator(Stream.NOISE, **where)
            noise_wav = draw_noise(self.noise, self.crop_samples, generator, stored=True)
            bad += self.noise.drain_bad()
        return CropItem(
            wav=torch.from_numpy(wav),
            noise_wav=noise_wav,
            labels=self.clips.labels(clip_id),
            ids_shuffle=self.draw_mask(seeded_generator(Stream.MASK, **where)),
            clip_id=clip_id,
            crop=Crop(self.clips[clip_id], start) if self.with_crops else None,
            bad=tuple(bad),
        )


def draw_noise(
    source: NoiseSource, num_samples: int, generator: torch.Generator, *, stored: bool = False
) -> Tensor:
    """`source.draw`; `PluginError` that names the source where it fails or breaks its contract.

    `stored`: int16 of a source that can (`ClipNoise.draw_stored`), where its samples are 16-bit PCM.
    """
    label = f"noise source {source.name!r}"
    draw = getattr(source, "draw_stored", source.draw) if stored else source.draw
    with PluginError.blaming(f"{label}: draw({num_samples}, generator)"):
        wav = draw(num_samples, generator)
    if stored and isinstance(wav, Tensor) and wav.dtype == torch.int16 and wav.shape == (num_samples,):
        return wav
    found = f"{tuple(wav.shape)} {wav.dtype}" if isinstance(wav, Tensor) else type(wav).__name__
    if found != f"({num_samples},) {torch.float32}":
        raise PluginError(
            f"{label}: draw must give a tensor ({num_samples},) {torch.float32}, but gave {found}"
        )
    if not wav.isfinite().all():
        raise PluginError(f"{label}: its samples must be finite, but some are NaN or infinite")
    return wav


def read_any_crop(
    clips: Sequence[Clip] | ClipList,
    clip_id: int,
    *,
    crop_samples: int,
    sample_rate: int,
    short_clips: ShortClips,
    generator: torch.Generator,
) -> tuple[int, float, StoredSamples, list[BadFile]]:
    """A random crop of the clip, or of another where it cannot be read.

    Gives the clip's id, where in the file the crop begins (s), its samples (N,) as `read_stored_crop` does, and the
    bad files.

    Raises `AudioError` when 100 clips in a row cannot be read.
    """

    def read(clip: Clip) -> tuple[float, StoredSamples]:
        return read_stored_crop(
            clip,
            crop_samples=crop_samples,
            sample_rate=sample_rate,
            short_clips=short_clips,
            position=float(torch.rand((), generator=generator, dtype=torch.float64)),
        )

    clip_id, (start, wav), bad = read_any(clips, clip_id, read, refusal=AudioError, generator=generator)
    return clip_id, start, wav, bad


def read_any(
    clips: Sequence[Clip] | ClipList,
    clip_id: int,
    read: Callable[[Clip], T],
    *,
    refusal: type[M2dxError],
    generator: torch.Generator,
) -> tuple[int, T, list[BadFile]]:
    """What `read` gives for the clip, or for another, drawn at random, where it refuses the clip; the bad files.

    The first is the id of the clip that was read. Raises the refusal when 100 clips in a row are refused.
    """
    bad: list[BadFile] = []
    for _ in range(_MOST_TRIES):
        clip = clips[clip_id]
        try:
            return clip_id, read(clip), bad
        except refusal as error:
            bad.append((str(clip.path), str(error)))
            clip_id = int(torch.randint(len(clips), (), generator=generator))
    path, reason = bad[-1]
    raise refusal(f"none of {_MOST_TRIES} clips in a row could be read; the last: {path}: {reason}")


def read_crop(
    clip: Clip, *, crop_samples: int, sample_rate: int, short_clips: ShortClips, position: float
) -> tuple[float, NDArray[np.float32]]:
    """Where in the file a crop begins (s), and its samples (N,) at `sample_rate`; `position` in [0, 1): in the clip.

    Only the crop is read. Shorter clips are padded with zeros at the end, or repeated. Raises `AudioError`.
    """
    start, samples = read_stored_crop(
        clip, crop_samples=crop_samples, sample_rate=sample_rate, short_clips=short_clips, position=position
    )
    return start, float_samples(samples)


def read_stored_crop(
    clip: Clip, *, crop_samples: int, sample_rate: int, short_clips: ShortClips, position: float
) -> tuple[float, StoredSamples]:
    """As `read_crop`; int16 where the file is mono 16-bit PCM at `sample_rate`, which is half the bytes."""
    with AudioFile(clip.path) as file:
        first, available = file.extent(clip.start, clip.duration)
        # Rounded up, so that resampling never gives a sample too few.
        needed = min(available, -(-crop_samples * file.info.sample_rate // sample_rate))
        first += int(position * (available - needed + 1))
        samples = file.read_stored(first, needed, sample_rate=sample_rate)[:crop_samples]
        start = first / file.info.sample_rate
    return start, fit_length(samples, crop_samples, short_clips=short_clips)


def fit_length(samples: StoredSamples, num_samples: int, *, short_clips: ShortClips) -> StoredSamples:
    """(num_samples,) from samples that are as many or fewer: padded with zeros at the end, or repeated."""
    if len(samples) >= num_samples:
        return samples[:num_samples]
    if short_clips == "repeat":
        return np.resize(samples, num_samples)  # repeats
    return np.pad(samples, (0, num_samples - len(samples)))
