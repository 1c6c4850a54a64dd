"""Random crops of the clips with their labels, noise and masks, the same under a seed whoever loads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset

from m2dx.contract.components import Clip, Crop, NoiseSource
from m2dx.contract.errors import AudioError, M2dxError, PluginError
from m2dx.data.bad_files import BadFile
from m2dx.data.batches import ItemKey, Stream, seeded_generator, stream_seed
from m2dx.data.clips import ClipList
from m2dx.data.pcm import StoredSamples, float_tensor, stack
from m2dx.data.reading import AudioFile
from m2dx.recipe.schema import ShortClips

_MOST_TRIES = 100


@dataclass(frozen=True)
class FoundCrop:
    """A crop of the clip that was asked for, or of another."""

    clip_id: int  # of the clip that was read
    inputs: Tensor  # audio: (N,) float32, or int16, 16-bit PCM as it is stored; an image: (C, H, W) uint8
    crop: Crop | None
    bad: Sequence[BadFile]  # what could not be read


@dataclass(frozen=True)
class CropItem(FoundCrop):
    """One item of a batch."""

    noise_wav: Tensor | None  # (N,), as audio
    labels: dict[str, Tensor]  # (C,) each
    ids_shuffle: Tensor  # (P,), or (n, P) with n masks
    seed: int  # of what is drawn for it on the device


@dataclass(frozen=True)
class Batch:
    """What the workers give to one micro-batch."""

    inputs: Tensor
    """Audio: (B, N) float32; from the loader, before `to`, also int16, 16-bit PCM as it is stored. Images: (B, C, H, W)
    uint8."""
    noise_wav: Tensor | None  # (B, N), as audio
    labels: dict[str, Tensor]  # by set: (B, C) multi-hot float32; NaN rows: not labelled
    ids_shuffle: Tensor  # (B, P) int64; n*B with n masks per clip, those of a clip side by side
    clip_ids: Tensor  # (B,) int64; of the clips that were read, after replacement of bad ones
    seeds: Tensor  # (B,) int64, of what is drawn for each clip on the device (`seeded_uniform`)
    bad: tuple[BadFile, ...]  # found while loading this batch; a file may come again in a later one
    crops: tuple[Crop, ...] | None = None  # where the audio is from, if that is wanted

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device, with float32 samples; from pinned memory without waiting for the copy.

        Samples stored as int16 travel as such, and become float32 there: half the bytes, and the same bit for bit.
        """
        return self._map(lambda tensor: float_tensor(tensor.to(device, non_blocking=True)))

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
        return replace(self, **tree_map_only(Tensor, change, vars(self)))


def collate(items: Sequence[CropItem]) -> Batch:
    """One batch of items as it travels to a device, where `Batch.to` makes it what the model takes.

    Its samples are int16 where all items have such.
    """
    noise = [item.noise_wav for item in items if item.noise_wav is not None]
    return Batch(
        inputs=stack([item.inputs for item in items]),
        noise_wav=stack(noise) if noise else None,
        labels={name: torch.stack([item.labels[name] for item in items]) for name in items[0].labels},
        ids_shuffle=torch.stack([item.ids_shuffle for item in items]).flatten(0, -2),
        clip_ids=torch.tensor([item.clip_id for item in items]),
        seeds=torch.tensor([item.seed for item in items]),
        bad=tuple(dict.fromkeys(bad for item in items for bad in item.bad)),
        crops=tuple(item.crop for item in items if item.crop is not None) or None,
    )


class CropReader(Protocol):
    """How one clip becomes a random crop; `AudioCrops` and `ImageCrops` (`m2dx.data.images`) are such."""

    refusal: ClassVar[type[M2dxError]]
    """What `read` raises for a clip that cannot be used."""

    def read(self, clip: Clip, generator: torch.Generator) -> tuple[Tensor, Crop | None]:
        """The crop as an item of a batch has it, and where in the audio it is from."""


@dataclass(frozen=True)
class AudioCrops:
    """Reads crops (N,) of audio, and no more of it. Shorter clips are padded with zeros at the end, or repeated."""

    crop_samples: int
    sample_rate: int  # Hz
    short_clips: ShortClips = "pad"
    refusal: ClassVar[type[M2dxError]] = AudioError

    def read(self, clip: Clip, generator: torch.Generator) -> tuple[Tensor, Crop]:
        """float32 or int16 samples of a random crop, and where they are from."""
        position = float(torch.rand((), generator=generator, dtype=torch.float64))
        start, samples = self.read_at(clip, position)
        return torch.from_numpy(samples), Crop(clip, start)

    def read_at(self, clip: Clip, position: float) -> tuple[float, StoredSamples]:
        """Where in the file a crop starts (s), and its samples; `position` in [0, 1): in the clip.

        int16 where the file is mono 16-bit PCM at the rate, which is half the bytes. Raises `AudioError`.
        """
        with AudioFile(clip.path) as file:
            first, available = file.extent(clip.start, clip.duration)
            # Rounded up, so that resampling never gives a sample too few.
            needed = min(available, -(-self.crop_samples * file.info.sample_rate // self.sample_rate))
            first += int(position * (available - needed + 1))
            samples = file.read_stored(first, needed, sample_rate=self.sample_rate)[: self.crop_samples]
            start = first / file.info.sample_rate
        return start, fit_length(samples, self.crop_samples, short_clips=self.short_clips)


def read_any_crop(clips: ClipList, clip_id: int, reader: CropReader, generator: torch.Generator) -> FoundCrop:
    """A random crop of the clip, or of another, drawn at random, where it cannot be read.

    Raises what the reader does when 100 clips in a row cannot be read.
    """
    bad: list[BadFile] = []
    for _ in range(_MOST_TRIES):
        clip = clips[clip_id]
        try:
            return FoundCrop(clip_id, *reader.read(clip, generator), tuple(bad))
        except reader.refusal as error:
            bad.append((str(clip.path), str(error)))
            clip_id = int(torch.randint(len(clips), (), generator=generator))
    path, reason = bad[-1]
    raise reader.refusal(f"none of {_MOST_TRIES} clips in a row could be read; the last: {path}: {reason}")


class TrainingCrops(Dataset[CropItem]):
    """Items by `ItemKey`: a crop of the key's clip, its labels, noise if there is a source, and a mask draw.

    The crop's place, the noise, the mask and the seed follow from (seed, epoch, position) alone, so that they do not
    depend on workers, processes or a resumed run. A clip that cannot be read is replaced by one drawn from the same
    randomness, and named in `bad`. Raises the reader's error when 100 clips in a row cannot be read, `PluginError` when
    the noise source breaks its contract.
    """

    def __init__(
        self,
        clips: ClipList,
        reader: CropReader,
        *,
        seed: int,
        draw_mask: Callable[[torch.Generator], Tensor],
        noise: NoiseSource | None = None,
        with_crops: bool = False,
    ) -> None:
        """`draw_mask` gives `ids_shuffle` (P,), a permutation of the patches, from a clip's generator. `noise` is for
        audio. `with_crops`: the items say where their audio is from."""
        self.clips, self.reader = clips, reader
        self.seed, self.draw_mask, self.noise, self.with_crops = seed, draw_mask, noise, with_crops

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: ItemKey) -> CropItem:
        where = {"seed": self.seed, "epoch": key.epoch, "position": key.position}
        found = read_any_crop(self.clips, key.clip_id, self.reader, seeded_generator(Stream.CROP, **where))
        noise_wav, bad = None, found.bad
        if self.noise is not None:
            generator = seeded_generator(Stream.NOISE, **where)
            noise_wav = draw_noise(self.noise, len(found.inputs), generator, stored=True)
            bad = (*bad, *self.noise.drain_bad())
        return CropItem(
            found.clip_id,
            found.inputs,
            found.crop if self.with_crops else None,
            bad,
            noise_wav=noise_wav,
            labels=self.clips.labels(found.clip_id),
            ids_shuffle=self.draw_mask(seeded_generator(Stream.MASK, **where)),
            seed=stream_seed(Stream.DEVICE, **where) >> 1,  # as int64 has it
        )


def draw_noise(
    source: NoiseSource, num_samples: int, generator: torch.Generator, *, stored: bool = False
) -> Tensor:
    """`source.draw`; `PluginError` that names the source where it fails or breaks its contract.

    `stored`: int16 of a source that can (`ClipNoise.draw_stored`), where its samples are 16-bit PCM.
    """
    label = f"noise source {source.name!r}"
    draw = getattr(source, "draw_stored", source.draw) if stored else source.draw
    with PluginError.blaming(f"{label}: draw({num_samples}, generator) failed"):
        wav = draw(num_samples, generator)
    if stored and isinstance(wav, Tensor) and wav.dtype == torch.int16 and wav.shape == (num_samples,):
        return wav
    found = f"{tuple(wav.shape)} {wav.dtype}" if isinstance(wav, Tensor) else type(wav).__name__
    wanted = f"({num_samples},) {torch.float32}"
    if found != wanted:
        raise PluginError(f"{label}: draw must give a tensor {wanted}, but gave {found}")
    if not wav.isfinite().all():
        raise PluginError(f"{label}: its samples must be finite, but some are NaN or infinite")
    return wav


def fit_length(samples: StoredSamples, num_samples: int, *, short_clips: ShortClips) -> StoredSamples:
    """(num_samples,) from samples that are as many or fewer: padded with zeros at the end, or repeated."""
    if len(samples) >= num_samples:
        return samples[:num_samples]
    if short_clips == "repeat":
        return np.resize(samples, num_samples)  # repeats
    return np.pad(samples, (0, num_samples - len(samples)))
