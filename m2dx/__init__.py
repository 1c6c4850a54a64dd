"""m2dx: multitask audio pre-training with Masked Modeling Duo (M2D-X). These are the public names.

Each is imported when it is first used, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2dx.contract.components import (
        Clip,
        ClipEncoder,
        Crop,
        DataInfo,
        Dataset,
        EvaluationTask,
        Evaluator,
        Loss,
        Mask,
        MaskedModel,
        MaskedModelOutput,
        Masking,
        NoiseSource,
        OfflineEncoder,
        OnlineMapper,
        Score,
        TaskInfo,
        TaskShapes,
        Views,
        Waveforms,
    )
    from m2dx.contract.errors import (
        AudioError,
        CheckpointError,
        ImageError,
        M2dxError,
        PluginError,
        RecipeError,
        TrainingError,
    )
    from m2dx.contract.hookspecs import hookimpl
    from m2dx.contract.host import PluginHost
    from m2dx.data.files import AudioFiles, list_audio
    from m2dx.data.logmel import LogMel
    from m2dx.data.packs import audio_state
    from m2dx.data.reading import audio_seconds, read_wav
    from m2dx.data.tables import read_table
    from m2dx.encoder.audio import AudioEncoder, load_encoder
    from m2dx.encoder.finetuned import AudioClassifier, load_classifier
    from m2dx.encoder.images import ImageEncoder, load_image_encoder
    from m2dx.evaluation.features import Standardiser
    from m2dx.evaluation.metrics import half_width_95
    from m2dx.evaluation.tasks import ClipTask
    from m2dx.model.m2d import M2D
    from m2dx.model.mae import MSMMAE
    from m2dx.model.multitask import MultiTask
    from m2dx.model.patches import PatchGrid
    from m2dx.model.vit import ViTSize
    from m2dx.recipe.loading import load_recipe
    from m2dx.training.trainer import Trainer

    __version__: str

__all__ = [
    "M2D",
    "MSMMAE",
    "AudioClassifier",
    "AudioEncoder",
    "AudioError",
    "AudioFiles",
    "CheckpointError",
    "Clip",
    "ClipEncoder",
    "ClipTask",
    "Crop",
    "DataInfo",
    "Dataset",
    "EvaluationTask",
    "Evaluator",
    "ImageEncoder",
    "ImageError",
    "LogMel",
    "Loss",
    "M2dxError",
    "Mask",
    "MaskedModel",
    "MaskedModelOutput",
    "Masking",
    "MultiTask",
    "NoiseSource",
    "OfflineEncoder",
    "OnlineMapper",
    "PatchGrid",
    "PluginError",
    "PluginHost",
    "RecipeError",
    "Score",
    "Standardiser",
    "TaskInfo",
    "TaskShapes",
    "Trainer",
    "TrainingError",
    "ViTSize",
    "Views",
    "Waveforms",
    "__version__",
    "audio_seconds",
    "audio_state",
    "half_width_95",
    "hookimpl",
    "list_audio",
    "load_classifier",
    "load_encoder",
    "load_image_encoder",
    "load_recipe",
    "read_table",
    "read_wav",
]

_MODULES = {
    "m2dx.data.files": "AudioFiles list_audio",
    "m2dx.data.packs": "audio_state",
    "m2dx.data.reading": "audio_seconds read_wav",
    "m2dx.data.tables": "read_table",
    "m2dx.encoder.finetuned": "AudioClassifier load_classifier",
    "m2dx.contract.components": "Clip ClipEncoder Crop DataInfo Dataset EvaluationTask Evaluator Loss Mask "
    "MaskedModel MaskedModelOutput Masking NoiseSource OfflineEncoder OnlineMapper Score TaskInfo TaskShapes Views "
    "Waveforms",
    "m2dx.encoder.audio": "AudioEncoder load_encoder",
    "m2dx.contract.errors": "AudioError CheckpointError ImageError M2dxError PluginError RecipeError TrainingError",
    "m2dx.evaluation.features": "Standardiser",
    "m2dx.evaluation.metrics": "half_width_95",
    "m2dx.evaluation.tasks": "ClipTask",
    "m2dx.contract.hookspecs": "hookimpl",
    "m2dx.encoder.images": "ImageEncoder load_image_encoder",
    "m2dx.contract.host": "PluginHost",
    "m2dx.recipe.loading": "load_recipe",
    "m2dx.data.logmel": "LogMel",
    "m2dx.model.m2d": "M2D",
    "m2dx.model.mae": "MSMMAE",
    "m2dx.model.multitask": "MultiTask",
    "m2dx.model.patches": "PatchGrid",
    "m2dx.model.vit": "ViTSize",
    "m2dx.training.trainer": "Trainer",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        from m2dx.contract.version import package_version

        value = package_version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'm2dx' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
