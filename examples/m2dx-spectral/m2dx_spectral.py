"""An m2dx plugin: the mel cepstrum as training signal, and a mapper that averages tokens over frequency."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torchaudio.functional import create_dct, melscale_fbanks

import m2dx


class Cepstrum(m2dx.OfflineEncoder):
    """Mel-frequency cepstral coefficients, (B, S, C), 50 frames per second: timbre without weights.

    They say which vowel or instrument sounds, and little of its pitch; HuBERT's first round of targets is made of them.

    Options:
        num_coefficients: coefficients, from the broad shape of the spectrum to its details
        level: keep coefficient 0, the level, too; it is large, so that a loss looks at little else
        n_mels: mel bands that the coefficients are computed from
    """

    name = "cepstrum"
    sample_rate = 16_000  # Hz, of the waveform it wants
    frame_rate = 50.0  # Hz, of its output
    window: Tensor
    filters: Tensor
    dct: Tensor

    def __init__(
        self, *, num_coefficients: PositiveInt = 20, level: bool = False, n_mels: PositiveInt = 40
    ) -> None:
        super().__init__()
        first = 0 if level else 1
        if first + num_coefficients > n_mels:
            raise m2dx.RecipeError(
                f"n_mels must be at least {first + num_coefficients} for {num_coefficients} coefficients, "
                f"but is {n_mels}"
            )
        self.embed_dim = num_coefficients
        bands = melscale_fbanks(257, 50.0, 8000.0, n_mels, self.sample_rate)
        dct = create_dct(first + num_coefficients, n_mels, norm="ortho")[:, first:]
        # Buffers move with .to(device); these follow from the options, so that no checkpoint has to keep them.
        self.register_buffer("window", torch.hann_window(512), persistent=False)
        self.register_buffer("filters", bands, persistent=False)
        self.register_buffer("dct", dct, persistent=False)

    def forward(self, views: m2dx.Views) -> Tensor:
        wav = views.clean_wav.float()
        spectrum = torch.stft(wav, 512, hop_length=320, window=self.window, return_complex=True)
        power = spectrum.abs().square().mT[:, :-1]  # (B, N) -> (B, S, 257)
        logmel = (power @ self.filters).clamp_min(1e-8).log()  # the floor keeps silence finite
        return logmel @ self.dct  # (B, S, n_mels) -> (B, S, C)


class FrequencyPool(m2dx.OnlineMapper):
    """Mean over frequency, then in time to the training signal's frames, then two layers: (B, F*T, D) -> (B, S, C).

    Options:
        hidden_dim: width between the two layers
    """

    name = "frequency_pool"

    def __init__(self, shapes: m2dx.TaskShapes, *, hidden_dim: PositiveInt = 512) -> None:
        super().__init__(shapes)
        if shapes.target_frames is None:
            raise m2dx.RecipeError(
                "the mapper frequency_pool gives frames, but the offline encoder gives one vector per clip; "
                "use pool_linear"
            )
        self.target_frames = shapes.target_frames
        self.mlp = nn.Sequential(
            nn.Linear(shapes.embed_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, shapes.target_dim)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        frames = tokens.unflatten(1, self.shapes.grid).mean(1)  # (B, F*T, D) -> (B, T, D)
        frames = nn.functional.interpolate(frames.mT, self.target_frames, mode="linear").mT  # -> (B, S, D)
        prediction: Tensor = self.mlp(frames)  # (B, S, C)
        return prediction


@m2dx.hookimpl
def offline_encoders() -> list[type]:
    return [Cepstrum]


@m2dx.hookimpl
def online_mappers() -> list[type]:
    return [FrequencyPool]
