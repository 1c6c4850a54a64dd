"""The HEAR 2021 interface, so that hear-eval-kit runs on any encoder, whose path is the model file.

python -m heareval.embeddings.runner m2dx_tasks.hear --model RUN_OR_EXPORT --tasks-dir TASKS

`--model-options '{"batch_statistics": true}'` standardises as the code behind tables 2 to 7 of MSM-MAE does.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from m2dx.contract.errors import CheckpointError
from m2dx.encoder.audio import AudioEncoder, check_samples, load_encoder

_BATCH_SECONDS = 120.0  # audio encoded at once; HEAR gives batches of whole recordings, some minutes long


class HearModel(nn.Module):
    """An encoder with the attributes that HEAR asks for.

    `sample_rate` in Hz (16,000 for the published models), `scene_embedding_size` and `timestamp_embedding_size` (F*D).
    With `batch_statistics` each batch is standardised with its own mean and standard deviation, and the last piece of a
    sound is filled up to the model's input, as in the published code of MSM-MAE: features then depend on the batch.
    """

    def __init__(self, encoder: AudioEncoder, *, batch_statistics: bool = False) -> None:
        super().__init__()
        self.encoder, self.batch_statistics = encoder, batch_statistics
        self.sample_rate = encoder.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = encoder.embed_dim

    def forward(self, audio: Tensor) -> Tensor:
        """Frame features (n_sounds, T, F*D), float32, of sounds (n_sounds, n_samples) in [-1, 1].

        ValueError for samples that are no such audio: NaN, infinite, or those of 16 bits.
        """
        if audio.ndim != 2:
            raise ValueError(f"audio must be (n_sounds, n_samples), but is {tuple(audio.shape)}")
        check_samples(audio, finite=True)
        sounds = max(
            int(_BATCH_SECONDS * self.sample_rate / max(audio.shape[1], 1)), 1
        )  # so that long ones fit
        logmel = torch.cat([self.encoder.standard_logmel(part) for part in audio.split(sounds)])
        grid = self.encoder.encoder.grid
        length = -(-logmel.shape[-1] // grid.patch_size[1])  # patches
        if self.batch_statistics:
            std, mean = torch.std_mean(logmel)
            logmel = nn.functional.pad((logmel - mean) / std, (0, -logmel.shape[-1] % grid.input_size[1]))
        frames = [self.encoder.encode_logmel(part)[-1] for part in logmel.split(sounds)]
        return torch.cat(frames)[:, :length].float()


def load_model(model_file_path: str | Path = "", *, batch_statistics: bool = False) -> HearModel:
    """The model of an export, a run, a checkpoint or a published file.

    Raises CheckpointError where there is no path: HEAR allows a default model, but m2dx ships no weights.
    """
    if not str(model_file_path):
        raise CheckpointError(
            "m2dx_tasks.hear needs the path of an encoder (an export, a run, a checkpoint or a published file), "
            "since m2dx comes without weights; give it as the model file (--model)"
        )
    return HearModel(load_encoder(model_file_path), batch_statistics=batch_statistics).eval()


@torch.inference_mode()
def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings (n_sounds, T, F*D) and the middle of each frame in ms, (n_sounds, T), at regular intervals.

    `audio` is (n_sounds, n_samples) at `model.sample_rate`. The interval is 1000 / frame_rate: 160 ms for patches of 16
    frames, 20 ms for 2. HEAR suggests 50 ms or less for transcription tasks.
    """
    frames = model(audio)
    middles = 1000.0 * model.encoder.times(frames.shape[1]).to(frames)
    return frames, middles.expand(len(frames), -1)


@torch.inference_mode()
def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """One embedding per sound, (n_sounds, F*D): the mean of the frames over time (M2D-X, IV-B)."""
    return model(audio).mean(dim=1)  # type: ignore[no-any-return]
