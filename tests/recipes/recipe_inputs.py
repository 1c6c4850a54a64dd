"""Generated inputs of recipes: weights to start from, and images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from m2dx.contract.components import PatchGrid
from m2dx.encoder.published import ENCODER_NAMES, rename
from m2dx.model.vit import VIT_SIZES, Encoder


def write_base(path: Path, size: str, *, depth: int | None = None) -> Path:
    """A file like the published 16 x 4 model, encoder only, with random weights of 16 bits."""
    vit = VIT_SIZES[size] if depth is None else replace(VIT_SIZES[size], depth=depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(PatchGrid((80, 200), (16, 4)), vit)
    names = {own: name for name, own in ENCODER_NAMES.items()}
    state = {name: tensor.half() for name, tensor in rename(encoder.state_dict(), names).items()}
    path.parent.mkdir(parents=True)
    torch.save({"model": state}, path)
    return path


def write_images(folder: Path, *, images: int) -> Path:
    """Noise in two classes, as train and val; most of the training images are links."""
    random = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 4)):
        for number in range(count):
            path = folder / split / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < 8:
                Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
            else:
                path.symlink_to(f"{number % 8}.jpg")
    return folder
