"""m2dx: multitask audio pre-training with Masked Modeling Duo (M2D-X). These are the public names.

Each is imported when it is first used, so that the command line starts without torch.
"""

import getpass
import os
from importlib import import_module
from typing import TYPE_CHECKING

try:
    getpass.getuser()
except (
    KeyError,
    ImportError,
    OSError,
):  # a container's user has no name, for which torch asks when it is imported
    os.environ["LOGNAME"] = "nobody"

if TYPE_CHECKING:
    from m2dx.contract.components import Augmentation as Augmentation
    from m2dx.contract.components import Backbone as Backbone
    from m2dx.contract.components import Callback as Callback
    from m2dx.contract.components import Clip as Clip
    from m2dx.contract.components import ClipEncoder as ClipEncoder
    from m2dx.contract.components import Crop as Crop
    from m2dx.contract.components import DataInfo as DataInfo
    from m2dx.contract.components import Dataset as Dataset
    from m2dx.contract.components import EvaluationTask as EvaluationTask
    from m2dx.contract.components import Evaluator as Evaluator
    from m2dx.contract.components import Loss as Loss
    from m2dx.contract.components import Mask as Mask
    from m2dx.contract.components import MaskedModel as MaskedModel
    from m2dx.contract.components import MaskedModelOutput as MaskedModelOutput
    from m2dx.contract.components import Masking as Masking
    from m2dx.contract.components import NoiseSource as NoiseSource
    from m2dx.contract.components import OfflineEncoder as OfflineEncoder
    from m2dx.contract.components import OnlineMapper as OnlineMapper
    from m2dx.contract.components import Optimizer as Optimizer
    from m2dx.contract.components import PatchGrid as PatchGrid
    from m2dx.contract.components import Prediction as Prediction
    from m2dx.contract.components import Regulariser as Regulariser
    from m2dx.contract.components import Schedule as Schedule
    from m2dx.contract.components import Score as Score
    from m2dx.contract.components import TaskInfo as TaskInfo
    from m2dx.contract.components import TaskShapes as TaskShapes
    from m2dx.contract.components import Views as Views
    from m2dx.contract.components import ViTSize as ViTSize
    from m2dx.contract.components import Waveforms as Waveforms
    from m2dx.contract.components import WeightMap as WeightMap
    from m2dx.contract.errors import AudioError as AudioError
    from m2dx.contract.errors import CheckpointError as CheckpointError
    from m2dx.contract.errors import ImageError as ImageError
    from m2dx.contract.errors import M2dxError as M2dxError
    from m2dx.contract.errors import PluginError as PluginError
    from m2dx.contract.errors import RecipeError as RecipeError
    from m2dx.contract.errors import TrainingError as TrainingError
    from m2dx.contract.hookspecs import hookimpl as hookimpl
    from m2dx.contract.host import PluginHost as PluginHost
    from m2dx.data.batches import seeded_uniform as seeded_uniform
    from m2dx.data.containers import audio_state as audio_state
    from m2dx.data.files import AudioFiles as AudioFiles
    from m2dx.data.files import list_audio as list_audio
    from m2dx.data.logmel import LogMel as LogMel
    from m2dx.data.reading import audio_seconds as audio_seconds
    from m2dx.data.reading import read_wav as read_wav
    from m2dx.data.tables import read_table as read_table
    from m2dx.encoder.audio import AudioEncoder as AudioEncoder
    from m2dx.encoder.audio import load_encoder as load_encoder
    from m2dx.encoder.finetuned import AudioClassifier as AudioClassifier
    from m2dx.encoder.finetuned import load_classifier as load_classifier
    from m2dx.encoder.images import ImageEncoder as ImageEncoder
    from m2dx.encoder.images import load_image_encoder as load_image_encoder
    from m2dx.evaluation.features import Standardiser as Standardiser
    from m2dx.evaluation.metrics import half_width_95 as half_width_95
    from m2dx.evaluation.tasks import ClipTask as ClipTask
    from m2dx.jobs.library import Outcome as Outcome
    from m2dx.jobs.library import evaluate as evaluate
    from m2dx.jobs.library import export as export
    from m2dx.jobs.library import train as train
    from m2dx.model.m2d import M2D as M2D
    from m2dx.model.mae import MSMMAE as MSMMAE
    from m2dx.model.multitask import MultiTask as MultiTask
    from m2dx.recipe.loading import load_recipe as load_recipe
    from m2dx.training.trainer import Trainer as Trainer

    __version__: str


_MODULES = {
    "m2dx.data.batches": "seeded_uniform",
    "m2dx.data.files": "AudioFiles list_audio",
    "m2dx.data.containers": "audio_state",
    "m2dx.data.reading": "audio_seconds read_wav",
    "m2dx.data.tables": "read_table",
    "m2dx.encoder.finetuned": "AudioClassifier load_classifier",
    "m2dx.contract.components": "Augmentation Backbone Callback Clip ClipEncoder Crop DataInfo Dataset EvaluationTask "
    "Evaluator Loss Mask MaskedModel MaskedModelOutput Masking NoiseSource OfflineEncoder OnlineMapper Optimizer "
    "PatchGrid Prediction Regulariser Schedule Score TaskInfo TaskShapes Views ViTSize Waveforms "
    "WeightMap",
    "m2dx.encoder.audio": "AudioEncoder load_encoder",
    "m2dx.contract.errors": "AudioError CheckpointError ImageError M2dxError PluginError RecipeError TrainingError",
    "m2dx.evaluation.features": "Standardiser",
    "m2dx.evaluation.metrics": "half_width_95",
    "m2dx.evaluation.tasks": "ClipTask",
    "m2dx.contract.hookspecs": "hookimpl",
    "m2dx.encoder.images": "ImageEncoder load_image_encoder",
    "m2dx.contract.host": "PluginHost",
    "m2dx.recipe.loading": "load_recipe",
    "m2dx.jobs.library": "Outcome evaluate export train",
    "m2dx.data.logmel": "LogMel",
    "m2dx.model.m2d": "M2D",
    "m2dx.model.mae": "MSMMAE",
    "m2dx.model.multitask": "MultiTask",
    "m2dx.training.trainer": "Trainer",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        from m2dx.contract.package import package_version

        value = package_version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name == "specialise":
        try:
            value = import_module("m2dx_specialise").specialise
        except ModuleNotFoundError as error:
            raise AttributeError("m2dx.specialise needs the package m2dx-specialise; install it") from error
    else:
        raise AttributeError(f"module 'm2dx' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
