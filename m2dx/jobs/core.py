"""The core's own components, registered through the same hooks as any plugin's, as the plugin named `m2dx`."""

from m2dx.contract.hookspecs import hookimpl
from m2dx.data.augmentations import MelShift, Mixup
from m2dx.data.csv_list import CsvDataset
from m2dx.data.datasets import FolderDataset, ImageFolder
from m2dx.data.noise import ColouredNoise
from m2dx.evaluation.knn import Knn
from m2dx.evaluation.logistic import Logistic
from m2dx.model.losses import BCE, MSE, CrossEntropy, NormMSE
from m2dx.model.m2d import M2D, M2DAllPatches
from m2dx.model.mae import MSMMAE
from m2dx.model.mappers import LinearMapper, PoolLinearMapper
from m2dx.model.masking import RandomMasking
from m2dx.model.offline_encoders import Labels, LogSpectrum
from m2dx.model.regularisers import VICReg
from m2dx.model.vit import Encoder
from m2dx.training.optimizers import AdamW, Cosine


@hookimpl
def methods() -> list[type]:
    return [M2D, M2DAllPatches, MSMMAE]


@hookimpl
def backbones() -> list[type]:
    return [Encoder]


@hookimpl
def offline_encoders() -> list[type]:
    return [Labels, LogSpectrum]


@hookimpl
def online_mappers() -> list[type]:
    return [LinearMapper, PoolLinearMapper]


@hookimpl
def losses() -> list[type]:
    return [NormMSE, MSE, CrossEntropy, BCE]


@hookimpl
def regularisers() -> list[type]:
    return [VICReg]


@hookimpl
def noise_sources() -> list[type]:
    return [ColouredNoise]


@hookimpl
def augmentations() -> list[type]:
    return [Mixup, MelShift]


@hookimpl
def maskings() -> list[type]:
    return [RandomMasking]


@hookimpl
def datasets() -> list[type]:
    return [FolderDataset, CsvDataset, ImageFolder]


@hookimpl
def optimizers() -> list[type]:
    return [AdamW]


@hookimpl
def schedules() -> list[type]:
    return [Cosine]


@hookimpl
def evaluators() -> list[type]:
    return [Knn, Logistic]
