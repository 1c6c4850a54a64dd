"""Clips and texts in one space: an encoder, the mapper of its caption task, and sentence vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import m2dx
from m2dx.encoder.audio import check_samples, filled
from m2dx_captions.sentences import Sentences, Source


def caption_tasks(encoder: m2dx.AudioEncoder) -> list[str]:
    """Names of the caption tasks that the encoder was trained with; none of an encoder of random or other weights."""
    tasks = (encoder.trained_as or {}).get("tasks", {})
    # regularisers need no offline encoder
    return [name for name, of in tasks.items() if (of.get("offline_encoder") or {}).get("name") == "captions"]


@dataclass(frozen=True)
class CaptionScorer:
    """How well texts describe audio. `load` makes one."""

    encoder: m2dx.AudioEncoder
    mapper: m2dx.OnlineMapper
    sentences: Sentences

    @classmethod
    def of(cls, encoder: m2dx.AudioEncoder, sentences: Sentences) -> CaptionScorer:
        """RecipeError where the encoder was not trained with one caption task, or the vectors have another width."""
        names = caption_tasks(encoder)
        start = f"{names[0]}." if len(names) == 1 else "no task"
        state = {key.removeprefix(start): of for key, of in encoder.mappers.items() if key.startswith(start)}
        if not state or encoder.trained_as is None:
            raise m2dx.RecipeError(
                "the encoder must come with the mapper of one task of captions, as an export, a checkpoint or a run's "
                f"folder of such a training, but has {len(names)} of these tasks, and {len(state)} tensors"
            )
        section, host = encoder.trained_as["tasks"][names[0]]["online_mapper"], m2dx.PluginHost.discover()
        spec, network = host.option_model("online_mapper", section["name"])(**section), encoder.encoder
        shapes = m2dx.TaskShapes(network.grid.shape, network.size.embed_dim, None, sentences.width)
        mapper: m2dx.OnlineMapper = host.build("online_mapper", spec, shapes=shapes)
        try:
            mapper.load_state_dict(state)
        except RuntimeError as error:
            raise m2dx.RecipeError(
                f"`sentences` must be those of the training, but {sentences.source} has vectors of {sentences.width} "
                f"values, which the mapper of the task {names[0]} does not give"
            ) from error
        device = next(network.parameters()).device
        return cls(encoder, mapper.requires_grad_(False).eval().to(device), sentences)

    @torch.no_grad()
    def audio(self, wav: Tensor) -> Tensor:
        """(B, C) of norm 1, from samples (B, N) or (N,): the mean over windows as long as the crops of the training.

        The last window ends with the audio; audio shorter than a window is filled as the crops of the training were.
        """
        check_samples(wav)
        length = self.encoder.encoder.grid.input_size[1]
        short_clips = (self.encoder.trained_as or {}).get("short_clips", "pad")
        wav = filled(torch.atleast_2d(wav), length * self.encoder.logmel.hop_length, short_clips=short_clips)
        logmel = self.encoder.standard_logmel(wav)
        last, found = logmel.shape[-1] - length, []
        for start in sorted({*range(0, last, length), last}):
            tokens = self.encoder.encoder(logmel[..., start : start + length])[
                :, 1:
            ]  # without the class token
            found.append(F.normalize(self.mapper(tokens).float(), dim=-1))
        return F.normalize(torch.stack(found).mean(0), dim=-1)

    def score(self, wav: Tensor, texts: Sequence[str]) -> Tensor:
        """Cosines (B, n) in [-1, 1] of audio, samples (B, N) or (N,) at `encoder.sample_rate`, with texts."""
        sounds = self.audio(wav)
        return sounds @ self.sentences.vectors(texts).to(sounds.device).mT


def load(path: str | Path, *, sentences: Source | str, cache: Path | None = None) -> CaptionScorer:
    """From an export, a run's folder or a checkpoint, and the sentence vectors that it was trained with, on the CPU.

    Raises CheckpointError and RecipeError where one of them is not there, or they do not fit.
    """
    return CaptionScorer.of(m2dx.load_encoder(path), Sentences(sentences, cache=cache))
