"""Batches on their way to the device."""

import pytest
import torch

from m2dx.data.crops import Batch
from m2dx.data.loader import DeviceCopies


def stored_batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    wav = torch.randint(-(2**15), 2**15, (4, 1000), generator=generator, dtype=torch.int16)
    ids = torch.randperm(12, generator=generator).expand(4, 12)
    return Batch(wav, wav.flip(0), {"a": torch.ones(4, 2)}, ids, torch.arange(4), torch.arange(4), ())


def test_a_batch_arrives_as_float32() -> None:
    batch = stored_batch(0)
    arrived = DeviceCopies(torch.device("cpu"))(batch)
    assert arrived.inputs.dtype == arrived.noise_wav.dtype == torch.float32
    assert torch.equal(arrived.inputs * 2**15, batch.inputs.float())
    assert torch.equal(arrived.noise_wav, arrived.inputs.flip(0))
    assert torch.equal(arrived.ids_shuffle, batch.ids_shuffle)


@pytest.mark.gpu
def test_copies_beside_a_gpus_work_are_whole() -> None:
    device = torch.device("cuda")
    copies, results = DeviceCopies(device), []
    x = torch.randn(2048, 2048, device=device)
    for seed in range(20):
        arrived = copies(stored_batch(seed).pin_memory())
        for _ in range(5):  # keeps the GPU busy, so that the next copy runs beside it
            x = (x @ x).clamp(-1, 1)
        results.append(arrived.inputs.sum(dim=1))
        del arrived
    for seed, result in enumerate(results):
        assert torch.equal(result, stored_batch(seed).to(device).inputs.sum(dim=1))
