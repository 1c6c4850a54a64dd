"""Base classes of the component kinds, and the frozen records that the engine passes between them.

Shapes: B batch, N samples, M mels, L frames, F x T patch grid, D width, S target frames, C target width. Sizes are
in (frequency, time) order. A component's positional `__init__` arguments come from the engine, matched by name with
`OFFERED`; its keyword-only arguments are the options of its section in a recipe.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LABEL_SEPARATOR = ";"


@dataclass(frozen=True, slots=True)  # of which there are millions
class Clip:
    """A segment of one audio file (or an image), with what is known about it."""

    path: Path
    start: float = 0.0  # seconds
    duration: float | None = None  # seconds; None: to the end of the file
    labels: tuple[str, ...] = ()  # none: not labelled
    split: str | None = None  # "train", "valid", "test", or a fold's name
    group: str | None = None  # what must not be on two sides of a split: a speaker, a patient, a device
    weight: float = 1.0  # chance, relative to the other clips, that weighted sampling takes it

    @property
    def unit(self) -> tuple[str, str]:
        """What it stays with in every division: its group, or where none is known its file."""
        return ("file", str(self.path)) if self.group is None else ("group", self.group)


@dataclass(frozen=True)
class Crop:
    """Where a training crop was cut from."""

    clip: Clip  # its path, start and duration; labels, split and group are not kept for the training
    start: float  # seconds from the start of the file, not of the clip


@dataclass(frozen=True)
class Waveforms:
    """The audio of a batch."""

    samples: Tensor  # (B, N) float32 whatever the precision of training
    sample_rate: int  # Hz


@dataclass(frozen=True)
class Views:
    """What an offline encoder may look at: the clean audio and its labels. M2D sees the noisy view instead.

    Paper: M2D-X, III-B. The published code feeds them the other way round in one of its loops; m2dx follows the paper.
    """

    waveforms: Waveforms | None  # at the rate that the encoder asked for; None: images
    clean_logmel: Tensor  # (B, 1, M, L), standardised by the pre-training data; the images, (B, C, H, W)
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    """Per data set of the recipe: multi-hot (B, C) in the order of `DataInfo.label_names`; NaN rows: not labelled."""
    crops: tuple[Crop, ...] | None = None
    """Where each row of `clean_wav` is from, for encoders with `wants_crops`; None: not known."""

    @property
    def clean_wav(self) -> Tensor:
        """(B, N) float32 at `sample_rate`; ValueError of images, which only encoders with `needs_wav = False` get."""
        return self._audio().samples

    @property
    def sample_rate(self) -> int:
        """Hz, of `clean_wav`; ValueError of images."""
        return self._audio().sample_rate

    def _audio(self) -> Waveforms:
        if self.waveforms is None:
            raise ValueError("images have no waveforms; who needs them must not say `needs_wav = False`")
        return self.waveforms


@dataclass(frozen=True)
class DataInfo:
    """What is known about the data before the first batch."""

    sample_rate: int | None  # Hz; None: images
    crop_samples: int | None  # N, samples of one training crop; None: images
    label_names: Mapping[str, tuple[str, ...]]  # per data set of the recipe


@dataclass(frozen=True)
class PatchGrid:
    """Patches over an input of M mels and L frames, or of an image's rows and columns."""

    input_size: tuple[int, int]  # (M, L)
    patch_size: tuple[int, int]  # (mels, frames)
    in_chans: int = 1  # channels of the input; 3 of images in colour

    def __post_init__(self) -> None:
        for size, patch in zip(self.input_size, self.patch_size, strict=True):
            if size % patch:
                raise ValueError(f"input {self.input_size} must be a multiple of the patch {self.patch_size}")

    @property
    def shape(self) -> tuple[int, int]:
        """(F, T), patches."""
        return self.input_size[0] // self.patch_size[0], self.input_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        """P = F x T."""
        freq, time = self.shape
        return freq * time

    @property
    def patch_values(self) -> int:
        """Values of one patch, over all channels."""
        return self.patch_size[0] * self.patch_size[1] * self.in_chans


@dataclass(frozen=True)
class ViTSize:
    """Width, blocks and heads of a transformer."""

    embed_dim: int
    depth: int
    num_heads: int


@dataclass(frozen=True)
class TaskShapes:
    """The two ends of an online mapper."""

    grid: tuple[int, int]  # (F, T), patches
    embed_dim: int  # D, of one token
    target_frames: int | None  # S; None: one target per clip
    target_dim: int  # C


@dataclass(frozen=True)
class Mask:
    """The patches of each clip of a batch, visible ones first. Patch f of frequency and t of time has index f*T + t.

    With `model.masks_per_clip` n it has n*B rows, those of a clip side by side; B below stands for as many.
    """

    ids_shuffle: Tensor  # (B, P), a permutation per clip
    num_visible: int  # V

    @property
    def visible(self) -> Tensor:
        """(B, V) indices of the visible patches."""
        return self.ids_shuffle[:, : self.num_visible]

    @property
    def masked(self) -> Tensor:
        """(B, P - V) indices of the masked patches."""
        return self.ids_shuffle[:, self.num_visible :]

    @property
    def restore(self) -> Tensor:
        """(B, P) indices that bring `cat(visible, masked)` back to the order of the patches."""
        return self.ids_shuffle.argsort(dim=1)

    @property
    def is_masked(self) -> Tensor:
        """(B, P) bool in the order of the patches, true where masked."""
        flags = torch.ones_like(self.ids_shuffle, dtype=torch.bool)
        return flags.scatter(1, self.visible, torch.zeros_like(self.visible, dtype=torch.bool))


@dataclass(frozen=True)
class MaskedModelOutput:
    """What one forward pass of a method gives."""

    loss: Tensor  # scalar
    latent: Tensor  # (B, 1 + V, D), the online encoder's output on visible patches, class token first
    prediction: Tensor  # M2D: (B, P - V, D), masked patches; MSM-MAE: (B, P, patch values), all patches
    target: Tensor  # what the prediction is compared with, masked patches only, standardised where asked
    tokens: Tensor | None  # (B, P, D), h-hat in frequency-major order (M2D-X, III-B1); None: not asked for


@dataclass(frozen=True)
class TaskInfo:
    """What makes a data set a published task: how it is scored in the literature, and how it lies on the disk."""

    title: str  # such as "ESC-50"
    unit_seconds: float  # length that each clip is cropped or filled to
    num_classes: int
    metric: Literal["accuracy", "mAP"]
    division: str  # "5 folds", or "train, valid, test"
    source: str  # paper and table, such as "M2D-X, table I"
    variable: str  # the environment variable that names its folder in recipes
    layout: str  # what is in that folder, as a tree of a few lines
    get: str  # where the data are from, and their licence, in a line or two


@dataclass(frozen=True)
class Prediction:
    """What a classifier said of one test clip; `clip.labels` is the truth."""

    clip: Clip
    label: str  # of the task's classes, the one with the highest probability
    probability: float  # of that class, in [0, 1]
    probabilities: tuple[float, ...] | None = None  # of all classes, in the task's order; None: not known


@dataclass(frozen=True)
class Score:
    """One number of an evaluation, with what is needed to compare it."""

    task: str
    metric: str  # "accuracy" or "mAP", in [0, 1], or an evaluator's own; tables print all in percent
    mean: float
    ci95: float | None
    """Half width of the 95 % confidence interval: Student's t over the values, of a single one the bootstrap over its
    test clips, which the engine adds; None: not known."""
    values: tuple[float, ...]  # by seed, or by fold and seed
    protocol: str  # the evaluator's name
    details: Mapping[str, object] = field(default_factory=dict)
    encoder: str = ""  # whose score it is, such as "pretrained"; set by the engine, left empty by evaluators
    predictions: tuple[Prediction, ...] = field(default=(), repr=False)
    """Of the test clips of all folds, by the first seed's classifier; optional."""


@dataclass(frozen=True)
class BadClip:
    """A clip that could not be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class Fold:
    """One division into training, validation and test clips: indices into the task's clips, each clip in one part."""

    name: str  # "test", or the name of the fold that is the test part
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    only_chooses: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Those of `valid` that share a group or sound with the test part: nothing may be fitted to them."""

    @property
    def fitted(self) -> NDArray[np.int64]:
        """Clips for a classifier that needs no validation part: those of both, but not those that only choose."""
        return np.setdiff1d(np.concatenate([self.train, self.valid]), self.only_chooses)


Pooling = Literal["mean", "mean_deviation", "max"]
"""Of frames over time; `mean_deviation` is mean and standard deviation side by side."""


class OverTime(NamedTuple):
    """Statistics over time of the frames (T, D) of n clips, each (n, D)."""

    mean: Tensor
    deviation: Tensor
    maximum: Tensor


@dataclass(frozen=True)
class Features:
    """Features and targets of all clips of a task, in their order, on the CPU."""

    x: Tensor  # (n, D), float32
    y: Tensor  # class numbers (n,), int64; multi-label: multi-hot (n, C), float32; of values (n,), float64
    layers: Mapping[int, OverTime] = field(default_factory=dict)
    """Of the outputs of blocks by number, the last one's, too; 0 is the patch embedding. Empty where the encoder gives
    no frames."""

    def pooled(self, layer: int | None = None, pooling: Pooling = "mean_deviation") -> Tensor:
        """Those of a layer, default the last, (n, D), or (n, 2*D) with the deviation; `x` where there is none."""
        if not self.layers:
            return self.x
        mean, deviation, maximum = self.layers[max(self.layers) if layer is None else layer]
        if pooling == "mean_deviation":
            return torch.cat([mean, deviation], dim=1)
        return mean if pooling == "mean" else maximum


class ClipEncoder(Protocol):
    """What evaluators need of an encoder: `m2dx.AudioEncoder` and the baselines have it."""

    sample_rate: int  # Hz
    embed_dim: int

    def clip(self, wav: Tensor) -> Tensor:
        """Clip features (B, embed_dim) from wav (B, N)."""
        ...


@dataclass(frozen=True, eq=False, match_args=False)  # so that its attributes are only read
class EvaluationTask(Protocol):
    """What evaluators are given: a labelled set of clips, divided for training and testing a classifier."""

    name: str  # in the recipe
    clips: tuple[Clip, ...]  # the usable ones, with their durations
    label_names: tuple[str, ...]  # of the classes, in the order of the targets; none: labels are values
    folds: tuple[Fold, ...]  # one for train/valid/test splits, several for cross validation
    unit_seconds: float | None  # length that each clip is cropped (from its start) or filled to; None: images
    short_clips: Literal["pad", "repeat"]  # how shorter clips are filled
    bad: tuple[BadClip, ...] = ()  # the clips that are left out
    warnings: tuple[str, ...] = ()  # what makes its scores less comparable, a line each

    @property
    def multi_label(self) -> bool:
        """Whether any clip has more than one label; then targets are multi-hot and the metric is mAP."""
        return any(len(clip.labels) > 1 for clip in self.clips)

    @property
    def metric(self) -> str:
        """ "accuracy", or "mAP" for multi-label tasks, "r2" for values."""
        return "mAP" if self.multi_label else "accuracy" if self.label_names else "r2"

    def targets(self) -> NDArray[np.floating]:
        """Multi-hot targets (n, C) float32, in the order of `clips` and `label_names`, or values (n, 1) float64."""
        ...

    def features(self, encoder: ClipEncoder, *, batch_size: int = 32, layers: Sequence[int] = ()) -> Features:
        """Frozen clip features of an encoder, computed once for each encoder, whose weights must not change.

        `Features.layers` has the patch embedding and up to five evenly spread blocks, and those of `layers` as well.
        """
        ...

    def batches(self, encoder: ClipEncoder, batch_size: int) -> Iterator[Tensor]:
        """The clips in order as the encoder wants them: audio (B, N) of `unit_seconds`, images (B, C, H, W)."""
        ...


class Backbone(nn.Module, abc.ABC):
    """The network of an encoder: the patches of an input, embedded, to features of the visible ones.

    What the engine offers to `__init__`: `grid` (`PatchGrid`) of the input, and `size` (`ViTSize`) of the recipe. A
    backbone refuses with RecipeError what it cannot have. Weights come from torch's global generator.
    """

    name: ClassVar[str]
    patch_embed: nn.Module
    """What `model.freeze_patch_embedding` keeps as it starts."""
    trunk: nn.Module
    """Of `make_trunk`: all that follows `embed`, but for the class token."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        made = super().__new__(cls)
        made.made_with = args, options
        return made

    def __init__(self, grid: PatchGrid, size: ViTSize) -> None:
        super().__init__()
        self.grid, self.size = grid, size

    made_with: tuple[tuple[Any, ...], dict[str, Any]]
    """The arguments of `__init__`: the engine's, and the options of the recipe."""

    def fresh(self) -> Backbone:
        """Another one with the same arguments, and with weights from torch's global generator."""
        args, options = self.made_with
        return type(self)(*args, **options)

    @abc.abstractmethod
    def make_trunk(self) -> nn.Module:
        """A trunk with fresh weights: the backbone's own, or that of a target network. FSDP shards its `blocks`."""

    @abc.abstractmethod
    def embed(self, logmel: Tensor) -> Tensor:
        """Embedded patches: (B, 1, M, L) -> (B, F*T, D), of images (B, C, H, W); L is not always that of the grid."""

    @abc.abstractmethod
    def layers(
        self, tokens: Tensor, ids: Tensor | None = None, *, trunk: nn.Module | None = None
    ) -> list[Tensor]:
        """The output of each of `size.depth` blocks for the patches at `ids` (B, V): (B, P, D) -> (B, 1 + V, D).

        The class token, or what stands for it, comes first. The other patches must change nothing. `ids` None: all
        patches; (n*B, V): n masks for each row of tokens. `trunk`: another one of `make_trunk`, as a target network.
        """

    def encode(self, tokens: Tensor, ids: Tensor | None = None, *, trunk: nn.Module | None = None) -> Tensor:
        """The last of `layers`, (B, 1 + V, D)."""
        return self.layers(tokens, ids, trunk=trunk)[-1]

    def forward(self, logmel: Tensor) -> Tensor:
        """All patches encoded, class token first: (B, 1, M, L) -> (B, 1 + F*T, D)."""
        return self.encode(self.embed(logmel))


class MaskedModel(nn.Module, abc.ABC):
    """A method of masked pre-training, such as M2D or MSM-MAE.

    What the engine offers to `__init__`: `grid` (`PatchGrid`) of the input; `size` and `predictor`, the sizes of the
    encoder and the predictor in the recipe (`ViTSize`); `backbone`, which makes an encoder of a grid and a size;
    `with_tokens`, whether there are tasks, which need h-hat. Weights come from torch's global generator, so that the
    recipe's seed gives them.
    """

    name: ClassVar[str]
    predictor_sizes: ClassVar[Mapping[str, int]] = {}
    """Defaults of `model.predictor` (`embed_dim`, `depth`, `num_heads`) where they differ from M2D's."""
    num_views: ClassVar[int] = 1
    """Views of a clip that it is given. The others of two or more come as the keyword `others` of `forward`, a tuple of
    tensors like logmel: the same crop with other draws of the augmentations, or the clean one where there are none."""
    reconstructs: ClassVar[bool] = False
    """Whether `prediction` has the input's values, (B, P, values of a patch), so that they can be drawn."""
    fitting_parts: ClassVar[Mapping[str, str]] = {"online": "online encoder"}
    """Children whose weights in a file of `init_from` must fit, with names for people. Others may start at random."""

    online: Backbone
    """The encoder that tasks, exports and scores use, of the grid and the size offered."""
    standardise_target: bool = False
    """Whether each target loses its own mean and spread, so that `prediction` has to get them back to be drawn."""

    @abc.abstractmethod
    def forward(self, logmel: Tensor, mask: Mask, *, with_tokens: bool = True) -> MaskedModelOutput:
        """Loss and features of a batch: logmel (B, 1, M, L), standardised and perhaps noisy; images (B, C, H, W).

        Where `mask` has n rows for each of logmel, the loss is the mean over all of them, and all features have n*B
        rows. `m2dx.model.masking.gather_tokens` takes such rows from tokens of B clips, which are then computed once.
        """

    def after_step(self, ema_decay: float) -> Mapping[str, float]:
        """What follows an optimizer step, such as a moving average; gives what the line of metrics shows of it.

        `ema_decay`: the step's value between those of `model.ema_decay`.
        """
        return {}

    def complete_start(self, missing: Sequence[str]) -> Mapping[str, str]:
        """Starts children that a file of `init_from` lacks from those that it has; child -> what was done, in words."""
        return {}

    def transformers(self) -> list[nn.Module]:
        """Modules with `blocks`, in the order of the forward pass: each is compiled, its blocks are sharded."""
        return [part for part in self.modules() if isinstance(getattr(part, "blocks", None), nn.ModuleList)]


class WeightMap(abc.ABC):
    """Gives weights of another project the names that they have in an encoder of m2dx.

    What the engine offers to `__init__`: `grid` (`PatchGrid`) and `size` (`ViTSize`) of the encoder.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by names of the encoder's `state_dict()`, in its shapes; what is used is taken out of `state`.

        `m2dx.model.vit.Encoder` shows the names. What the encoder has, and is not given, starts at random.
        """


class OfflineEncoder(nn.Module, abc.ABC):
    """The training signal of a task beside M2D, from the clean view. Frozen, in eval mode, without gradient.

    What the engine offers to `__init__`: `data` (`DataInfo`).
    """

    name: ClassVar[str]
    sample_rate: int | None = None  # Hz of the waveform it wants; None: as the recipe
    frame_rate: float | None = None  # Hz of its output; None: one vector per clip
    embed_dim: int  # C
    wants_crops: bool = False  # whether `views.crops` is to say where the audio is from
    needs_wav: ClassVar[bool] = True  # False: it works on images, too, which have no waveforms

    def num_frames(self, num_samples: int) -> int | None:
        """Frames S that `forward` gives for N samples at its rate; None: one vector per clip, as of every image."""
        if self.frame_rate is None:
            return None
        if self.sample_rate is None:
            raise TypeError(f"{type(self).__name__} has a frame_rate: it needs a sample_rate or num_frames")
        return int(num_samples * self.frame_rate / self.sample_rate + 1e-6)

    @abc.abstractmethod
    def forward(self, views: Views) -> Tensor:
        """The training signal, (B, C) or (B, S, C)."""


class OnlineMapper(nn.Module, abc.ABC):
    """From h-hat to the training signal's shape; trained. The engine offers `shapes` (`TaskShapes`)."""

    name: ClassVar[str]

    def __init__(self, shapes: TaskShapes) -> None:
        super().__init__()
        self.shapes = shapes

    @abc.abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """The prediction, (B, C) or (B, S, C), from tokens (B, F*T, D) in frequency-major order."""


class Loss(nn.Module, abc.ABC):
    """Compares a prediction with a training signal. The engine offers nothing."""

    name: ClassVar[str]

    @abc.abstractmethod
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """A scalar, from two tensors of one shape."""


class Regulariser(nn.Module, abc.ABC):
    """A term of the loss on the features of a batch, without an online mapper. The engine offers `shapes`.

    `shapes` (`TaskShapes`) are those of the features, and of the training signal of the task's offline encoder. The
    signal's width is 0 where the task has none. What is frozen, such as a teacher, belongs into an offline encoder.
    """

    name: ClassVar[str]
    needs_tokens: ClassVar[bool] = True  # False: it leaves `output.tokens` alone, which may be None then

    def __init__(self, shapes: TaskShapes) -> None:
        super().__init__()
        self.shapes = shapes

    @abc.abstractmethod
    def forward(self, output: MaskedModelOutput, target: Tensor | None) -> Tensor:
        """A scalar, from the method's output and the training signal, (B, C) or (B, S, C); None: there is none."""


class NoiseSource(abc.ABC):
    """Background noise. The engine offers `sample_rate` (Hz)."""

    name: ClassVar[str]

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    @abc.abstractmethod
    def draw(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """(N,) float32 samples of noise, finite; all randomness comes from the generator, so that runs repeat."""

    def drain_bad(self) -> list[tuple[str, str]]:
        """Files that `draw` could not use since the last call, each with the reason; by default there are none."""
        return []


class Augmentation(nn.Module, abc.ABC):
    """A change of what the method is given of a clip; offline encoders keep the clean one (M2D-X, III-B).

    It runs on the device, in float32 and without gradient. The engine offers `sample_rate` (Hz). Checkpoints leave it
    out, so that all that it holds, such as impulse responses, has to follow from its options.
    """

    name: ClassVar[str]
    changes: ClassVar[Literal["waveform", "logmel"]]
    mixes_clips: ClassVar[bool] = False  # whether what becomes of a clip depends on others of its micro-batch

    @abc.abstractmethod
    def forward(self, x: Tensor, seeds: Tensor) -> Tensor:
        """x changed, of the same shape and type: samples (B, N), or standardised log-mels (B, 1, M, L).

        x itself must stay as it is. All randomness comes from `seeds` (B,) int64, by `m2dx.seeded_uniform`, so that
        runs repeat and go on exactly.
        """


class Dataset(abc.ABC):
    """A list of clips. Decoding stays with the core. The engine offers nothing."""

    name: ClassVar[str]
    task: TaskInfo | None = None  # of a published task; `m2dx tasks` lists these
    media: Literal["audio", "image"] | None = "audio"  # what its files are; None: as the recipe's input

    @abc.abstractmethod
    def clips(self, split: str | None = None) -> list[Clip]:
        """Clips of one split, or all of them, in an order that does not change from run to run."""

    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the targets; by default what occurs, sorted."""
        return tuple(sorted({label for clip in self.clips() for label in clip.labels}))

    def missing(self) -> list[str]:
        """What this data set lacks on this machine, one line each; training goes on without it."""
        return []

    def notes(self) -> list[str]:
        """What of its list is ignored, or taken for something else, one line each; `m2dx check` prints them."""
        return []


class Masking(abc.ABC):
    """Chooses the patches of each clip that are visible; the others are masked.

    Loading processes `draw`, and never see the sound. One that overrides `look` is asked again on the device, where the
    sound and the step are known.

    What the engine offers to `__init__`: `grid` (F, T), patches; `num_visible`, V, which follows from the recipe's mask
    ratio; `patch_seconds`, the length of a patch in time (None: the input has no time, as images).
    """

    name: ClassVar[str]

    def __init__(self, grid: tuple[int, int], num_visible: int) -> None:
        self.grid, self.num_visible = grid, num_visible

    @abc.abstractmethod
    def draw(self, generator: torch.Generator) -> Tensor:
        """A permutation (F*T,) int64 of the patches, the first V of which are visible; patch (f, t) is f*T + t.

        All randomness comes from the generator, which is the clip's own, so that runs repeat and go on exactly.
        """

    def look(self, ids: Tensor, logmel: Tensor, *, progress: float, seeds: Tensor) -> Tensor:
        """The permutations (B, F*T) of a batch, instead of `ids`, those that `draw` gave; on the device of them all.

        logmel (B, 1, M, L), or images (B, C, H, W): what the method sees, standardised, with noise where that is mixed
        in; it must not be changed. `progress`: share of the run's steps that are done, in [0, 1). Other randomness than
        that of `ids` comes from `seeds` (B,) by `m2dx.seeded_uniform`, and no clip depends on the others.
        """
        return ids


class Optimizer(torch.optim.Optimizer):
    """Steps the trained weights by their gradients; an optimizer of torch, of several classes or of its own making.

    What the engine offers to `__init__`: `named_parameters`, the trained ones with their names; `learning_rate` of the
    first step; `weight_decay` and `betas` of the recipe. Each trained weight must be in `param_groups` once. Before
    each step the engine sets `lr` of each group: the step's rate times the group's `lr_scale`, where it has one.
    `state` has what changes from step to step, by parameter, in tensors, and goes into checkpoints. A resumed run takes
    options of groups from its recipe.
    """

    name: ClassVar[str]


class Schedule(abc.ABC):
    """The learning rate after the linear warm-up, between `train.min_lr` and the peak. The engine offers nothing."""

    name: ClassVar[str]

    @abc.abstractmethod
    def share(self, progress: float) -> float:
        """How near the rate is to the peak, from 0 (`min_lr`) to 1; `progress`: done of the steps after the warm-up."""


class Callback:
    """Listens to a training, in its main process; the methods do nothing by default. The engine offers nothing.

    It cannot change the numbers of a run: it gets copies of plain data, what it draws from global generators is undone,
    and what it raises is a warning. One with `changes` is a part of the training: it is given the model, what it raises
    ends the run, and its state is in checkpoints. A training waits for the scores of each checkpoint if such a one
    has `scores`, so that it ends at the same step when it is resumed.
    """

    name: ClassVar[str]
    changes: ClassVar[bool] = False

    def start(self, recipe: Mapping[str, Any], folder: Path, step: int) -> None:
        """Training starts, or goes on after `step`; the resolved recipe as plain data, and the run's folder."""

    def metrics(self, line: Mapping[str, float]) -> None:
        """A line of metrics.jsonl, with its `step`."""

    def checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint was written; `path` may be removed later, as `train.keep_last` says."""

    def scores(self, step: int, scores: Sequence[Score]) -> None:
        """Scores of the encoder after a step (`evaluation.every`); after `end` the last one's and the baselines'."""

    def end(self, summary: Mapping[str, Any]) -> None:
        """Training has ended, or a signal has stopped it; the summary has the fields of `TrainingSummary`."""

    def after_step(self, model: MaskedModel, step: int, total_steps: int) -> None:
        """Of those with `changes`: called in each process after the method's own `after_step`; `step` are done."""

    def stop(self) -> str | None:
        """Of those with `changes`: why the training is to end, after lines of metrics and checkpoints; None: not."""

    def state_dict(self) -> dict[str, Any]:
        """Of those with `changes`: tensors and plain data that a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of those with `changes`: goes on from what `state_dict` gave, with tensors on the CPU."""


class Evaluator(abc.ABC):
    """A protocol that scores an encoder on a labelled task. The engine offers nothing."""

    name: ClassVar[str]
    needs_wav: ClassVar[bool] = True  # False: it uses the task's features alone, so that images will do
    predicts: ClassVar[Literal["class", "value"]] = "class"  # the `target` of the tasks that it scores

    def check(self, task: EvaluationTask) -> None:  # noqa: B027
        """Raises RecipeError where the protocol cannot score the task; called before anything is trained.

        No file of it has been read: it has no folds, and `unit_seconds` only where its lists or the recipe say it.
        """

    def check_encoder(self, encoder: ClipEncoder, task: EvaluationTask) -> None:  # noqa: B027
        """Raises RecipeError where the options do not suit the encoder, which may have no weights yet, and the task."""

    @abc.abstractmethod
    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """Scores of one encoder on one task, over the seeds that the protocol uses.

        The encoder may be a baseline that only has clip features. A protocol that needs more (an `AudioEncoder`)
        raises RecipeError for it, which says to leave the baseline out.
        """


KINDS: dict[str, type] = {
    "method": MaskedModel,
    "backbone": Backbone,
    "weight_map": WeightMap,
    "offline_encoder": OfflineEncoder,
    "online_mapper": OnlineMapper,
    "loss": Loss,
    "regulariser": Regulariser,
    "noise_source": NoiseSource,
    "augmentation": Augmentation,
    "masking": Masking,
    "dataset": Dataset,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "callback": Callback,
    "evaluator": Evaluator,
}
"""Kind -> base class. The hook of a kind is its plural, e.g. `offline_encoders`, `losses`."""

OFFERED: dict[str, frozenset[str]] = {
    "method": frozenset({"grid", "size", "predictor", "backbone", "with_tokens"}),
    "backbone": frozenset({"grid", "size"}),
    "weight_map": frozenset({"grid", "size"}),
    "offline_encoder": frozenset({"data"}),
    "online_mapper": frozenset({"shapes"}),
    "regulariser": frozenset({"shapes"}),
    "noise_source": frozenset({"sample_rate"}),
    "augmentation": frozenset({"sample_rate"}),
    "masking": frozenset({"grid", "num_visible", "patch_seconds"}),
    "optimizer": frozenset({"named_parameters", "learning_rate", "weight_decay", "betas"}),
}
"""Kind -> names of the positional arguments that the engine can give; none to a kind that is not here."""
