"""Every extension point of m2dx. A plugin implements any of these with `@m2dx.hookimpl`.

Each hook returns a list of component classes (see `m2dx.contract.components` for the base class of each kind). A hook
of another name is an error, so that a misspelled one is not silently ignored.
"""

import pluggy

ENTRY_POINT_GROUP = "m2dx"

hookspec = pluggy.HookspecMarker("m2dx")
hookimpl = pluggy.HookimplMarker("m2dx")


@hookspec
def methods() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `MaskedModel`: what is predicted of the masked patches, and how it is learned."""


@hookspec
def backbones() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Backbone`: the network of the encoder, such as a vision transformer."""


@hookspec
def weight_maps() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `WeightMap`: names of m2dx for weights of other projects, to start from."""


@hookspec
def offline_encoders() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `OfflineEncoder`: training signals for the tasks beside M2D."""


@hookspec
def online_mappers() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `OnlineMapper`: from M2D's features to the shape of a training signal."""


@hookspec
def losses() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Loss`: what compares a mapper's prediction with a training signal."""


@hookspec
def regularisers() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Regulariser`: terms of the loss on the features of a batch, with a training signal or without."""


@hookspec
def noise_sources() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `NoiseSource`: background noise for the mix of eq. (5)."""


@hookspec
def augmentations() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Augmentation`: changes of the waveform or the log-mel that the method is given."""


@hookspec
def datasets() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Dataset`: lists of clips with their labels and splits."""


@hookspec
def maskings() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Masking`: which patches of each clip are masked."""


@hookspec
def optimizers() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Optimizer`: how weights follow their gradients."""


@hookspec
def schedules() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Schedule`: the learning rate from step to step."""


@hookspec
def callbacks() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Callback`: what listens to a training, such as loggers and early stopping."""


@hookspec
def evaluators() -> list[type]:  # type: ignore[empty-body]
    """Subclasses of `Evaluator`: protocols that score a pre-trained encoder."""
