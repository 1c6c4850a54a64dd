"""A tiny encoder and a task of respiratory cycles."""

import pytest
import torch
from m2dx_respiratory import IcbhiDataset
from m2dx_respiratory.sample import write_icbhi
from torch import Tensor

import m2dx

WIDTH, HEADS = 32, 2


def published_weights(seed: int) -> dict[str, Tensor]:
    """A one-block encoder for 80 x 64 log-mels in patches of 16 x 16, under the published names."""
    random = torch.Generator().manual_seed(seed)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + 5 * 4, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 1, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
    }
    for name, (rows, columns) in {
        "attn.qkv": (3 * WIDTH, WIDTH),
        "attn.proj": (WIDTH, WIDTH),
        "mlp.fc1": (4 * WIDTH, WIDTH),
        "mlp.fc2": (WIDTH, 4 * WIDTH),
    }.items():
        shapes |= {f"blocks.0.{name}.weight": (rows, columns), f"blocks.0.{name}.bias": (rows,)}
    weights = {name: 0.1 * torch.randn(shape, generator=random) for name, shape in shapes.items()}
    for norm in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
        weights |= {f"{norm}.weight": torch.ones(WIDTH), f"{norm}.bias": torch.zeros(WIDTH)}
    return weights


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> m2dx.AudioEncoder:
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth"
    torch.save({"model": published_weights(0)}, path)
    return m2dx.load_encoder(path, num_heads=HEADS)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> m2dx.ClipTask:
    folder = write_icbhi(tmp_path_factory.mktemp("icbhi"), clips=12)
    dataset = IcbhiDataset(path=folder, unit="cycles")
    return m2dx.ClipTask.from_dataset("lungs", dataset, unit_seconds=0.6, shared_groups="warn")
