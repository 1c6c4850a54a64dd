"""The sections `train` and `evaluation` of a recipe: how it is trained, and what is measured."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from m2dx.recipe.section import DatasetSpec, EvaluatorSpec, Identifier, OpenFraction, Section, ShortClips

if TYPE_CHECKING:
    BatchSize = int  # "auto" is gone once a recipe is read
else:
    BatchSize = PositiveInt | Literal["auto"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class TrainSection(Section):
    """Optimisation. The defaults are the published ones (M2D-X, IV-A)."""

    epochs: PositiveFloat = 300.0
    """Passes over the data (or over `data.epoch_size` clips)."""
    batch_size: BatchSize = 2048
    """Effective batch: clips per optimizer step, over processes and accumulation; auto: kept, with accumulate auto."""
    accumulate: PositiveInt | Literal["auto"] = 1
    """Backward passes per optimizer step of batch_size / (accumulate x processes) clips; auto: the fewest that fit."""
    base_lr: PositiveFloat = 3e-4
    """Base learning rate; the peak is base_lr x batch_size / 256."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate that the cosine ends at."""
    warmup_epochs: NonNegativeFloat = 20.0
    """Epochs of linear warm-up."""
    betas: tuple[OpenFraction, OpenFraction] = (0.9, 0.95)
    """AdamW's betas."""
    weight_decay: NonNegativeFloat = 0.05
    """AdamW's weight decay; on matrices and the class and mask tokens, not on biases and norms."""
    clip_norm: PositiveFloat | None = 3.0
    """Gradient norm that gradients are clipped at; null: not clipped."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass (autocast); fp16 needs a GPU and scales the loss."""
    compile: bool = False
    """Compile the model with torch.compile."""
    sharding: Literal["none", "fsdp"] = "none"
    """How several processes share the model: none (a copy each, DDP), fsdp (weights, gradients, moments in shards)."""
    timeout_minutes: PositiveFloat = 30.0
    """Minutes that a process waits for the others before it ends with an error."""
    device: Device = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    threads: PositiveInt | None = None
    """CPU threads of each training process; default torch's choice."""
    log_every: PositiveInt = 10
    """Steps between lines of metrics.jsonl."""
    rankme_every: PositiveInt = 100
    """Steps between RankMe measurements of the features (the collapse alarm)."""
    checkpoint_every: PositiveInt = 1000
    """Steps between checkpoints."""
    keep_last: PositiveInt = 2
    """Checkpoints kept: the last ones."""
    keep_every: PositiveInt | None = None
    """Steps between checkpoints that are kept for good; a multiple of checkpoint_every."""

    @property
    def backward_passes(self) -> int:
        """`accumulate`, once m2dx.memory.choice has put a number in the place of auto."""
        assert self.accumulate != "auto"
        return self.accumulate

    @model_validator(mode="before")
    @classmethod
    def _auto_batch(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("batch_size") != "auto":
            return values
        if values.get("accumulate", "auto") != "auto":
            raise ValueError(
                "batch_size is auto, so accumulate must be left out, or auto, but is "
                f"{values['accumulate']}; give batch_size a number to set accumulate"
            )
        rest = {key: value for key, value in values.items() if key != "batch_size"}
        return {**rest, "accumulate": "auto"}

    @model_validator(mode="after")
    def _consistent(self) -> "TrainSection":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be less than epochs ({self.epochs:g}), but is {self.warmup_epochs:g}"
            )
        if self.accumulate != "auto" and self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size must be a multiple of accumulate ({self.accumulate}), but is {self.batch_size}"
            )
        if self.keep_every is not None and self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"keep_every must be a multiple of checkpoint_every ({self.checkpoint_every}), "
                f"but is {self.keep_every}"
            )
        return self


class EvaluationTaskSection(Section):
    """A labelled task; its clips carry `split` (train, valid, test) or a fold in `split`."""

    dataset: DatasetSpec
    """Where the labelled clips come from."""
    unit_seconds: PositiveFloat | None = None
    """Length that each clip is cropped or padded to, s; default a published task's own, or the clips' mean length."""
    short_clips: ShortClips = "pad"
    """What to do with clips shorter than that."""
    shared_groups: Literal["error", "warn"] = "error"
    """What follows from a group on both sides of a split; "warn" is for official splits that have such groups."""
    evaluators: Annotated[tuple[Identifier, ...], Field(min_length=1)] | None = None
    """Protocols that score this task, by their names in `evaluation.evaluators`; default all."""


class EvaluationSection(Section):
    """What is measured after pre-training, and during it."""

    tasks: dict[Identifier, EvaluationTaskSection] = {}
    """Labelled tasks by name."""
    evaluators: dict[Identifier, EvaluatorSpec] = {}
    """Protocols by name; each runs on each task that does not name others."""
    baselines: tuple[Literal["random_weights", "mean_logmel"], ...] = ("random_weights", "mean_logmel")
    """What the encoder is compared with: the same network before training, and log-mel mean and std over time."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    """Seeds of the evaluators (and of the random weights)."""
    cache: bool = True
    """Keep clip features in `output`/features, by weights, task and settings; not those of evaluations in training."""
    every: PositiveInt | None = None
    """Steps between evaluations during training, in a process of their own; a multiple of train.checkpoint_every."""
    device: Device = "cpu"
    """Device of the evaluations during training; by default no GPU, since its memory is the training's."""
    threads: PositiveInt | None = None
    """CPU threads of the evaluations during training; default a quarter of the processors."""

    @model_validator(mode="after")
    def _something_to_score(self) -> "EvaluationSection":
        if self.every is not None and not self.tasks:
            raise ValueError(
                f"every is {self.every}, so there must be tasks to score, but there are none; add one under tasks, or "
                "leave every out"
            )
        return self

    @model_validator(mode="after")
    def _known_evaluators(self) -> "EvaluationSection":
        for name, task in self.tasks.items():
            unknown = [other for other in task.evaluators or () if other not in self.evaluators]
            if unknown:
                raise ValueError(
                    f"tasks.{name}.evaluators must be among evaluation.evaluators "
                    f"({', '.join(self.evaluators) or 'none'}), but has {', '.join(unknown)}"
                )
        return self
