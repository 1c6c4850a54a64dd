"""The sections `audio`, `image`, `data` and `noise` of a recipe: what goes into the model."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from m2dx.recipe.section import (
    DatasetSpec,
    Fraction,
    Identifier,
    NoiseSourceSpec,
    PositiveFraction,
    Section,
    ShortClips,
)


class AudioSection(Section):
    """Log-mel settings. The defaults are the published ones for the sampling rate (M2D-X, IV-A)."""

    sample_rate: PositiveInt = 16_000
    """Sampling rate that all audio is converted to, Hz."""
    n_fft: PositiveInt = 400
    """FFT length, samples; default 25 ms (400 at 16 kHz, 800 at 32 kHz)."""
    win_length: PositiveInt = 400
    """Window length (periodic Hann), samples; default 25 ms."""
    hop_length: PositiveInt = 160
    """Step between frames, samples; default 10 ms."""
    n_mels: PositiveInt = 80
    """Mel bands."""
    f_min: NonNegativeFloat = 50.0
    """Lowest frequency of the mel bands, Hz."""
    f_max: PositiveFloat = 8000.0
    """Highest frequency of the mel bands, Hz; default half the sampling rate."""
    crop_seconds: PositiveFloat = 6.08
    """Length of one training crop, s; its frames, one per hop_length, must be a multiple of the patch's time size."""

    @model_validator(mode="before")
    @classmethod
    def _published_settings(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        try:
            rate = int(values.get("sample_rate", 16_000))
        except (TypeError, ValueError):
            return values  # the field's own error says it better
        length = rate // 40
        published = {"n_fft": length, "win_length": length, "hop_length": rate // 100, "f_max": rate / 2}
        return {**published, **values}

    @model_validator(mode="after")
    def _consistent(self) -> "AudioSection":
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length must be at most n_fft ({self.n_fft}), but is {self.win_length}")
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"f_min < f_max <= sample_rate / 2 must hold, but f_min is {self.f_min}, f_max {self.f_max} "
                f"and sample_rate {self.sample_rate}"
            )
        return self

    @property
    def crop_frames(self) -> int:
        """L, frames of one crop."""
        return round(self.crop_seconds * self.sample_rate / self.hop_length)

    @property
    def crop_samples(self) -> int:
        """N, samples of one crop."""
        return self.crop_frames * self.hop_length

    @property
    def input_size(self) -> tuple[int, int]:
        """(M, L), the log-mel spectrogram of one crop."""
        return self.n_mels, self.crop_frames

    @property
    def in_chans(self) -> int:
        """Channels of the input."""
        return 1


class ImageSection(Section):
    """Images as input, instead of audio (M2D-X, appendix A). The defaults are those of MAE, which the paper takes."""

    size: tuple[PositiveInt, PositiveInt] = (224, 224)
    """Height and width of the input, pixels; multiples of the patch size."""
    channels: Literal[1, 3] = 3
    """Channels: 3, images are brought to RGB, or 1, to grey."""
    crop_scale: tuple[PositiveFraction, PositiveFraction] = (0.2, 1.0)
    """Least and largest share of the image's area that a random crop takes, before it is resized to the size."""
    flip: bool = True
    """Flip half of the crops left to right."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, of values in [0, 1]; measured when not given (ImageNet: 0.485, 0.456, 0.406)."""
    std: tuple[PositiveFloat, ...] | None = None
    """Standard deviation of each channel; measured when not given (ImageNet: 0.229, 0.224, 0.225)."""

    @model_validator(mode="after")
    def _consistent(self) -> "ImageSection":
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(
                f"crop_scale must be the least and the largest share, but is {list(self.crop_scale)}"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together, or both be left out to be measured")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(
                    f"{name} must have a value for each of the {self.channels} channels, but has {len(values)}"
                )
        return self

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.size

    @property
    def in_chans(self) -> int:
        """Channels of the input."""
        return self.channels


class DataSetSection(Section):
    """One data set of the pre-training data."""

    dataset: DatasetSpec
    """Where the clips come from."""
    split: str | None = None
    """Only clips of this split; default all."""
    repeat: PositiveInt = 1
    """Times that each clip counts in an epoch, to give a small set its weight beside a large one."""


class DataSection(Section):
    """The pre-training data: one or more data sets, joined. A clip listed in several of them counts once."""

    sets: Annotated[dict[Identifier, DataSetSection], Field(min_length=1)]
    """Data sets by name; `labels` tasks refer to the name."""
    short_clips: ShortClips = "pad"
    """What to do with clips shorter than the crop: pad with zeros at the end, or repeat."""
    epoch_size: PositiveInt | None = None
    """Clips per epoch; default the size of the data. A larger number replicates the list (M2D-X, IV-E: 10,000)."""
    sampling: Literal["uniform", "weighted"] = "uniform"
    """Clips that an epoch takes: all alike, or by the weights that the data sets give them, without replacement."""
    shards_at_once: PositiveInt | None = None
    """Shards of packed data that an epoch mixes at a time before it goes on to others; default it mixes all clips."""
    workers: NonNegativeInt | None = None
    """DataLoader processes per training process; default one per core, at most 16. Results do not depend on it."""
    max_bad_fraction: Fraction = 0.05
    """Share of unusable files above which the run stops."""
    stats_clips: PositiveInt = 10_000
    """Clips, at most, that mean and standard deviation are measured over."""
    mean: float | None = None
    """Mean of the log-mel spectrograms; measured when not given (AudioSet: -7.1)."""
    std: PositiveFloat | None = None
    """Standard deviation of the log-mel spectrograms; measured when not given (AudioSet: 4.2)."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "DataSection":
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together, or both be left out to be measured")
        if self.shards_at_once is not None and self.sampling == "weighted":
            raise ValueError("shards_at_once must be left out with sampling: weighted, which mixes all clips")
        return self


class NoiseSection(Section):
    """Background noise (M2D-X, III-B2, eq. 5). M2D sees the noisy view, offline encoders the clean one."""

    ratio: Fraction
    """Noise ratio eta: the noise's share of the mixed power (paper: 0.2 speech, 0.3 ICBHI, 0.01 SPRSound)."""
    source: NoiseSourceSpec | None = None
    """A noise source; give this or `dataset`."""
    dataset: DatasetSpec | None = None
    """A data set whose random crops are the noise; give this or `source`."""
    split: str | None = None
    """Only clips of this split of `dataset`; default all."""
    mean: float | None = None
    """Mean of the noise's log-mel spectrograms; measured when not given."""

    @model_validator(mode="after")
    def _one_of(self) -> "NoiseSection":
        if (self.source is None) == (self.dataset is None):
            raise ValueError("exactly one of source and dataset must be given")
        if self.split is not None and self.dataset is None:
            raise ValueError("split needs dataset")
        return self
