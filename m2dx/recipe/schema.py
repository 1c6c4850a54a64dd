"""The recipe: every field that a recipe file may have, its unit, default and source.

Component sections (`ComponentSpec`) are replaced by unions over the installed components when a recipe is read
(`m2dx.recipe.loading`); here they stand for "a component of that kind, with its options". This module does not import
torch, so that the command line starts fast.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from m2dx.contract.options import ComponentSpec, ComponentUnion, Section
from m2dx.contract.paths import RecipeEncoderPath, RunPath


class Kind:
    """Marks a field that holds a component of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


AugmentationSpec = Annotated[ComponentSpec, Kind("augmentation")]
DatasetSpec = Annotated[ComponentSpec, Kind("dataset")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Samples = Annotated[int, Field(gt=0, le=65_536)]
Depth = Annotated[int, Field(gt=0, le=256)]
Width = Annotated[int, Field(gt=0, le=16_384)]
Pixels = Annotated[int, Field(gt=0, le=4096)]
EvaluationSeed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # as NumPy and scikit-learn take them
ShortClips = Literal["pad", "repeat"]
Baseline = Annotated[
    Literal["start", "random_weights", "mean_logmel"] | RecipeEncoderPath, Field(union_mode="left_to_right")
]


class AudioSection(Section):
    """Log-mel settings. The defaults are the published ones for the sampling rate (M2D-X, IV-A)."""

    sample_rate: Annotated[int, Field(gt=0, le=1_000_000)] = 16_000
    """Sampling rate that all audio is converted to, Hz."""
    n_fft: Samples = 400
    """FFT length, samples; default 25 ms (400 at 16 kHz, 800 at 32 kHz)."""
    win_length: Samples = 400
    """Window length (periodic Hann), samples; default 25 ms."""
    hop_length: Samples = 160
    """Step between frames, samples; default 10 ms."""
    n_mels: Annotated[int, Field(gt=0, le=1024)] = 80
    """Mel bands."""
    f_min: NonNegativeFloat = 50.0
    """Lowest frequency of the mel bands, Hz."""
    f_max: PositiveFloat = 8000.0
    """Highest frequency of the mel bands, Hz; default half the sampling rate."""
    crop_seconds: Annotated[float, Field(gt=0, le=600)] = 6.08
    """Length of one training crop, s; its frames, one per hop_length, must be a multiple of the patch's time size."""

    @model_validator(mode="before")
    @classmethod
    def _published_settings(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        try:
            rate = int(values.get("sample_rate", 16_000))
        except (TypeError, ValueError, OverflowError):
            return values  # the field's own error says it better
        length = rate // 40
        published = {"n_fft": length, "win_length": length, "hop_length": rate // 100, "f_max": rate / 2}
        return {**published, **values}

    def _faults(self) -> Iterator[str]:
        if self.win_length > self.n_fft:
            yield f"win_length must be at most n_fft ({self.n_fft}), but is {self.win_length}"
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            values = f"f_min is {self.f_min}, f_max {self.f_max} and sample_rate {self.sample_rate}"
            yield f"f_min < f_max <= sample_rate / 2 must hold, but {values}"

    @property
    def crop_frames(self) -> int:
        """L, frames of one crop."""
        return round(self.crop_seconds * self.sample_rate / self.hop_length)

    @property
    def crop_samples(self) -> int:
        """N, samples of one crop."""
        return self.crop_frames * self.hop_length


class ImageSection(Section):
    """Images as input, instead of audio (M2D-X, appendix A). The defaults are those of MAE, which the paper takes."""

    size: tuple[Pixels, Pixels] = (224, 224)
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

    def _faults(self) -> Iterator[str]:
        if self.crop_scale[0] > self.crop_scale[1]:
            yield f"crop_scale must be the least and the largest share, but is {list(self.crop_scale)}"
        if (self.mean is None) != (self.std is None):
            yield "mean and std must be given together, or both be left out to be measured"
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                yield f"{name} must have a value for each of the {self.channels} channels, but has {len(values)}"


class DataSetSection(Section):
    """One data set of the pre-training data."""

    dataset: DatasetSpec
    """Where the clips come from."""
    split: str | None = None
    """Only clips of this split; default all."""
    repeat: Annotated[int, Field(gt=0, le=100_000)] = 1
    """How often each clip counts in an epoch, to give a small set weight beside a large one."""


class DataSection(Section):
    """The pre-training data: one or more data sets, joined. A clip listed in several of them counts once."""

    sets: Annotated[dict[Identifier, DataSetSection], Field(min_length=1)]
    """Data sets by name; `labels` tasks refer to the name."""
    short_clips: ShortClips = "pad"
    """What to do with clips shorter than the crop: pad with zeros at the end, or repeat."""
    epoch_size: Annotated[int, Field(gt=0, le=50_000_000)] | None = None
    """Clips per epoch; default the size of the data. A larger number replicates the list (M2D-X, IV-E: 10,000)."""
    sampling: Literal["uniform", "weighted"] = "uniform"
    """How an epoch draws clips: all alike, or by the data sets' weights, without replacement."""
    shards_at_once: PositiveInt | None = None
    """Shards of packed data that an epoch mixes at a time; by default it mixes all clips."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """DataLoader processes per training process; default one per core, at most 16. Results do not depend on it."""
    max_bad_fraction: Fraction = 0.05
    """Share of unusable files above which the run stops."""
    stats_clips: PositiveInt = 10_000
    """Clips, at most, that mean and standard deviation are measured over."""
    mean: float | None = None
    """Mean of the log-mel spectrograms; measured when not given (AudioSet: -7.1)."""
    std: PositiveFloat | None = None
    """Standard deviation of the log-mel spectrograms; measured when not given (AudioSet: 4.2)."""

    def _faults(self) -> Iterator[str]:
        if (self.mean is None) != (self.std is None):
            yield "mean and std must be given together, or both be left out to be measured"
        if self.shards_at_once is not None and self.sampling == "weighted":
            yield "shards_at_once must be left out with sampling: weighted, which mixes all clips"


class NoiseSection(Section):
    """Background noise (M2D-X, III-B2, eq. 5). M2D sees the noisy view, offline encoders the clean one."""

    ratio: BelowOne
    """Noise ratio eta: the noise's share of the mixed power (paper: 0.2 speech, 0.3 ICBHI, 0.01 SPRSound)."""
    source: Annotated[ComponentSpec, Kind("noise_source")] | None = None
    """A noise source; give this or `dataset`."""
    dataset: DatasetSpec | None = None
    """A data set whose random crops are the noise; give this or `source`."""
    split: str | None = None
    """Only clips of this split of `dataset`; default all."""
    mean: float | None = None
    """Mean of the noise's log-mel spectrograms; measured when not given."""

    def _faults(self) -> Iterator[str]:
        if (self.source is None) == (self.dataset is None):
            yield "exactly one of source and dataset must be given"
        if self.split is not None and self.dataset is None:
            yield "split needs dataset"


class PredictorSection(Section):
    """The transformer that predicts all patches from the visible ones (eq. 1); for MSM-MAE the decoder."""

    embed_dim: Width = 512
    """Width."""
    depth: Depth = 8
    """Blocks."""
    num_heads: Width = 16
    """Attention heads."""


class EmaSection(Section):
    """Decay of the target network (eq. 3), linearly interpolated over the steps (M2D-X, IV-A)."""

    start: Fraction = 0.99995
    """Decay at the first step."""
    end: Fraction = 0.99999
    """Decay at the last step."""

    def _faults(self) -> Iterator[str]:
        if self.start > self.end:
            yield f"start must be at most end ({self.end:g}), but is {self.start:g}"
        if self.start == 1.0:
            yield "start must be less than 1, or the target never moves from its random weights"


class ModelSection(Section):
    """Masked Modeling Duo (M2D-X, III-A), its reconstruction sibling MSM-MAE, or another method."""

    method: Annotated[ComponentSpec, Kind("method")] = ComponentSpec(name="m2d")
    """Predict the target network's latents (m2d), reconstruct the spectrogram (msm_mae), or what a plugin brings."""
    backbone: Annotated[ComponentSpec, Kind("backbone")] = ComponentSpec(name="vit")
    """The network of the encoder: a vision transformer (vit), or what a plugin brings."""
    size: Literal["tiny", "small", "base", "large"] = "base"
    """ViT size: 192, 384, 768 or 1024 wide; 12 blocks (large 24); 64 per head."""
    depth: Depth | None = None
    """Blocks of the encoder, instead of the size's own."""
    patch_size: tuple[PositiveInt, PositiveInt] = (16, 16)
    """Patch size (mels, frames)."""
    mask_ratio: OpenFraction = 0.7
    """Share of the patches that is masked."""
    masking: Annotated[ComponentSpec, Kind("masking")] | None = None
    """Which of the patches are masked; default `random`, as in the papers."""
    masks_per_clip: Annotated[int, Field(gt=0, le=64)] = 1
    """Masks of each clip in a step, whose loss is the mean over all (EAT, Chen et al., 2024, section 3.2: 16)."""
    predictor: PredictorSection = PredictorSection()
    """The predictor; by default the published one of the method (MSM-MAE: 384 wide, 4 blocks, 6 heads)."""
    freeze_patch_embedding: bool = False
    """Keep the patch embedding as it starts, random or from `init_from` (Chen et al., MoCo v3, 2021, section 4.2)."""
    ema_decay: EmaSection = EmaSection()
    """Decay of the target network; methods that have none, such as MSM-MAE, leave it unread."""
    weight: NonNegativeFloat = 1.0
    """Weight lambda of the method's loss in eq. (6)."""

    @model_validator(mode="before")
    @classmethod
    def _predictor_of_the_method(cls, values: Any) -> Any:
        """Sizes of the predictor that the recipe leaves open are those that its method was published with."""
        given = values.get("predictor", {}) if isinstance(values, dict) else None
        if not isinstance(given, dict):
            return values
        method = values.get("method")
        name = method.get("name") if isinstance(method, dict) else method
        unions = [meta for meta in cls.model_fields["method"].metadata if isinstance(meta, ComponentUnion)]
        spec = unions[0].models.get(str(name)) if unions else None
        sizes = getattr(spec.component, "predictor_sizes", {}) if spec is not None else {}
        return {**values, "predictor": {**sizes, **given}}


class TaskSection(Section):
    """One task beside M2D: a term of the loss (M2D-X, III-B), or a regulariser."""

    offline_encoder: Annotated[ComponentSpec, Kind("offline_encoder")] | None = None
    """Makes the training signal from the clean view; a regulariser may do without."""
    online_mapper: Annotated[ComponentSpec, Kind("online_mapper")] | None = None
    """Maps M2D's features to the training signal's shape."""
    loss: Annotated[ComponentSpec, Kind("loss")] | None = None
    """Compares the two."""
    regulariser: Annotated[ComponentSpec, Kind("regulariser")] | None = None
    """A term on M2D's features themselves, in the place of online_mapper and loss."""
    weight: NonNegativeFloat | Literal["auto"] = 1.0
    """Weight lambda of this task in eq. (6); auto: follows the training, so that `gradient_ratio` holds."""
    gradient_ratio: PositiveFloat | None = None
    """Of `weight: auto`: norm of the task's gradient at the encoder's output by that of the method's; default 0.5."""
    target_frames: Literal["native", "tokens"] = "native"
    """Frames of the training signal: its own, or brought to the T frames of the patch grid (mean, interpolation)."""

    def _faults(self) -> Iterator[str]:
        parts = {name: getattr(self, name) for name in ("offline_encoder", "online_mapper", "loss")}
        if self.regulariser is None and (lacking := [name for name, part in parts.items() if part is None]):
            yield f"{', '.join(lacking)} must be given, or a regulariser in the place of online_mapper and loss"
        if self.regulariser is not None and (self.online_mapper or self.loss):
            yield "regulariser stands in the place of online_mapper and loss; leave it or these out"
        if self.target_frames == "tokens" and self.offline_encoder is None:
            yield "target_frames needs an offline_encoder, whose frames it brings to the patch grid; leave it out"
        if self.gradient_ratio is not None and self.weight != "auto":
            yield f"gradient_ratio needs weight: auto, but weight is {self.weight:g}; leave one of them out"


Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")]
Threads = Annotated[int, Field(gt=0, le=1024)]


class TrainSection(Section):
    """Optimisation. The defaults are the published ones (M2D-X, IV-A)."""

    epochs: Annotated[float, Field(gt=0, le=1_000_000)] = 300.0
    """Passes over the data (or over `data.epoch_size` clips)."""
    batch_size: PositiveInt = 2048
    """Effective batch: clips per optimizer step, over processes and accumulation."""
    accumulate: PositiveInt | Literal["auto"] = 1
    """Backward passes per optimizer step of batch_size / (accumulate x processes) clips; auto: the fewest that fit."""
    base_lr: Annotated[float, Field(ge=1e-9, le=10)] = 3e-4
    """Base learning rate; the peak is base_lr x batch_size / 256."""
    min_lr: NonNegativeFloat = 0.0
    """Least learning rate, at the end of the cosine."""
    warmup_epochs: NonNegativeFloat = 20.0
    """Epochs of linear warm-up."""
    schedule: Annotated[ComponentSpec, Kind("schedule")] = ComponentSpec(name="cosine")
    """How the learning rate goes from the peak to min_lr, after the warm-up."""
    optimizer: Annotated[ComponentSpec, Kind("optimizer")] = ComponentSpec(name="adamw")
    """What steps the weights."""
    betas: tuple[OpenFraction, OpenFraction] = (0.9, 0.95)
    """AdamW's betas."""
    weight_decay: NonNegativeFloat = 0.05
    """The optimizer's weight decay; AdamW's is on matrices and the class and mask tokens, not on biases and norms."""
    clip_norm: Annotated[float, Field(ge=1e-6)] | None = 3.0
    """Norm at which gradients are clipped; null: no clipping."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Arithmetic of the forward pass (autocast); fp16 needs a GPU and scales the loss; auto: bf16 where it is there."""
    compile: bool = False
    """Compile the model with torch.compile."""
    sharding: Literal["none", "fsdp"] = "none"
    """How several processes share the model: none (a copy each, DDP), fsdp (weights, gradients, moments in shards)."""
    timeout_minutes: Annotated[float, Field(gt=0, le=100_000)] = 30.0
    """Minutes that a process waits for the others before it ends with an error."""
    device: Device = "auto"
    """auto (a CUDA GPU where there is one), cpu, cuda, cuda:N, or mps (a Mac's GPU)."""
    threads: Threads | None = None
    """CPU threads of each training process; default torch's choice."""
    callbacks: dict[Identifier, Annotated[ComponentSpec, Kind("callback")]] = {}
    """What listens to the training, by names of your choice: components that plugins bring."""
    log_every: PositiveInt = 10
    """Steps between lines of metrics.jsonl."""
    rankme_every: PositiveInt = 100
    """Steps between RankMe measurements of the features (the collapse alarm)."""
    checkpoint_every: PositiveInt = 1000
    """Steps between checkpoints."""
    keep_last: PositiveInt = 2
    """Number of last checkpoints to keep."""
    keep_every: PositiveInt | None = None
    """Steps between checkpoints that are kept for good; a multiple of checkpoint_every."""

    @property
    def backward_passes(self) -> int:
        """`accumulate`, once m2dx.training.micro_batch has put a number in the place of auto."""
        assert self.accumulate != "auto"
        return self.accumulate

    def _faults(self) -> Iterator[str]:
        if self.warmup_epochs >= self.epochs:
            yield f"warmup_epochs must be less than epochs ({self.epochs:g}), but is {self.warmup_epochs:g}"
        if self.accumulate != "auto" and self.batch_size % self.accumulate:
            yield f"batch_size must be a multiple of accumulate ({self.accumulate}), but is {self.batch_size}"
        peak = self.base_lr * self.batch_size / 256
        if self.min_lr > peak:
            yield f"min_lr must be at most the peak, base_lr x batch_size / 256 = {peak:.3g}, but is {self.min_lr:g}"
        if self.keep_every is not None and self.keep_every % self.checkpoint_every:
            saved = self.checkpoint_every
            yield f"keep_every must be a multiple of checkpoint_every ({saved}), but is {self.keep_every}"


class EvaluationTaskSection(Section):
    """A labelled task; its clips carry `split` (train, valid, test) or a fold in `split`."""

    dataset: DatasetSpec
    """Where the labelled clips come from."""
    target: Literal["class", "value"] = "class"
    """What a label is: the name of a class, or a number, which evaluators such as `ridge` of m2dx-probes predict."""
    unit_seconds: Annotated[float, Field(ge=0.01, le=3600)] | None = None
    """Length that each clip is cropped or padded to, s; default a published task's, or the mean (long ones capped)."""
    short_clips: ShortClips = "pad"
    """What to do with clips shorter than that."""
    shared_groups: Literal["error", "warn"] = "error"
    """A group on both sides of a split is an error, or only a warning, for official splits with such groups."""
    evaluators: Annotated[tuple[Identifier, ...], Field(min_length=1)] | None = None
    """Protocols that score this task, by their names in `evaluation.evaluators`; default all."""


class EvaluationSection(Section):
    """What is measured after pre-training, and during it."""

    tasks: dict[Identifier, EvaluationTaskSection] = {}
    """Labelled tasks by name."""
    evaluators: dict[Identifier, Annotated[ComponentSpec, Kind("evaluator")]] = {}
    """Protocols by name; each runs on each task that does not name others; default knn and logistic."""
    baselines: tuple[Baseline, ...] = ("start", "random_weights", "mean_logmel")
    """What the encoder is compared with: init_from, random weights, log-mel statistics, starter, paths of encoders."""
    seeds: Annotated[tuple[EvaluationSeed, ...], Field(min_length=1)] = (0,)
    """Seeds of the evaluators (and of the random weights)."""
    cache: bool = True
    """Keep clip features in `output`/features, by weights, task and settings; not those of evaluations in training."""
    every: PositiveInt | None = None
    """Steps between evaluations during training, in a process of their own; a multiple of train.checkpoint_every."""
    device: Device = "auto"
    """Device of all evaluations; auto: train.device after the training, but the CPU while it needs the GPU's memory."""
    threads: Threads | None = None
    """CPU threads of the evaluations during training; default a quarter of the processors."""

    def _faults(self) -> Iterator[str]:
        if self.every is not None and not self.tasks:
            yield (
                f"every is {self.every}, so there must be tasks to score, but there are none; add one under tasks, or "
                "leave every out"
            )
        if len(set(self.baselines)) < len(self.baselines):
            yield f"baselines must differ, but are {', '.join(map(str, self.baselines))}"
        for name, task in self.tasks.items():
            unknown = [other for other in task.evaluators or () if other not in self.evaluators]
            if unknown:
                yield (
                    f"tasks.{name}.evaluators must be among evaluation.evaluators "
                    f"({', '.join(self.evaluators) or 'none'}), but has {', '.join(unknown)}"
                )


class Recipe(Section):
    """One pre-training run."""

    name: Identifier = "recipe"
    """Name of the run; default the recipe file's."""
    output: RunPath = Path("runs")
    """Folder for the folders of runs, relative to the current folder."""
    seed: NonNegativeInt = 0
    """Seed of weights, crops, masks and noise."""
    audio: AudioSection = AudioSection()
    """Log-mel settings."""
    image: ImageSection | None = None
    """Images as input, instead of audio; default none."""
    data: DataSection
    """Pre-training data."""
    noise: NoiseSection | None = None
    """Background noise; default none."""
    augmentations: Annotated[tuple[AugmentationSpec, ...], Field(max_length=64)] = ()
    """Changes of what M2D is given, in this order: those of waveforms before the noise, those of log-mels after it."""
    model: ModelSection = ModelSection()
    """Masked Modeling Duo."""
    init_from: RecipeEncoderPath | None = None
    """Weights to start from (M2D-X, IV-E): starter, an export, run, checkpoint or published file; default none."""
    weight_map: Annotated[ComponentSpec, Kind("weight_map")] | None = None
    """What gives the weights of another project in `init_from` the names of m2dx; default none."""
    tasks: dict[Identifier, TaskSection] = {}
    """Offline tasks by name, beside M2D."""
    train: TrainSection = TrainSection()
    """Optimisation."""
    evaluation: EvaluationSection = EvaluationSection()
    """Evaluation after pre-training, and during it."""

    @property
    def input(self) -> AudioSection | ImageSection:
        """What goes into the model."""
        return self.audio if self.image is None else self.image

    def _faults(self) -> Iterator[str]:
        yield from self._input_faults()
        if self.weight_map is not None and self.init_from is None:
            yield "weight_map needs init_from, the file with the weights that it names"
        if not self.model.weight and not any(task.weight for task in self.tasks.values()):
            yield "model.weight must be above 0 where no task has a weight, or there is nothing to learn"
        train, auto = self.train, [name for name, task in self.tasks.items() if task.weight == "auto"]
        if auto and not self.model.weight:
            yield f"tasks.{auto[0]}.weight must be a number where model.weight is 0, but is auto"
        if auto and (train.compile or train.sharding == "fsdp" or train.precision == "fp16"):
            yield (
                f"tasks.{auto[0]}.weight must be a number with train.compile, train.sharding fsdp or train.precision "
                "fp16, where the gradients of single terms are not measured, but is auto"
            )
        every, saved = self.evaluation.every, self.train.checkpoint_every
        if every is not None and every % saved:
            yield (
                f"evaluation.every must be a multiple of train.checkpoint_every ({saved}), since checkpoints are "
                f"scored, but is {every}"
            )

    def _input_faults(self) -> Iterator[str]:
        mels, frames = self.model.patch_size
        if self.image is not None:
            if self.audio != type(self.audio)():
                yield "audio must be left out where image is given; the input is one of the two"
            if self.noise is not None:
                yield "noise must be left out with image: background noise is mixed into audio only"
            if self.augmentations:
                yield "augmentations must be left out with image: they change waveforms and log-mels"
            if self.data.mean is not None:
                yield (
                    "data.mean and data.std are those of log-mel spectrograms and must be left out with image; give "
                    "image.mean and image.std"
                )
            height, width = self.image.size
            if height % mels or width % frames:
                yield (
                    f"image.size must be a multiple of model.patch_size ({mels} x {frames}), but is {height} x {width}"
                )
            return
        if self.audio.n_mels % mels:
            yield (
                f"audio.n_mels must be a multiple of the patch's {mels} mels (model.patch_size), "
                f"but is {self.audio.n_mels}"
            )
        length, hop = self.audio.crop_frames, self.audio.hop_length / self.audio.sample_rate
        if length % frames or not length:
            near = [f"{n * frames * hop:.6g} s" for n in (length // frames, length // frames + 1) if n]
            yield (
                f"audio.crop_seconds must be a multiple of the patch's {frames} frames (model.patch_size), but is "
                f"{self.audio.crop_seconds:g} s, {length} frames; nearest: {' or '.join(near)}"
            )
