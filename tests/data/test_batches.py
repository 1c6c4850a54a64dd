"""Which clips a step takes: the same for any number of processes, and when resumed."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from m2dx.contract.errors import RecipeError
from m2dx.data.batches import ItemKey, Stream, TrainingBatches, epoch_order, seeded_generator, seeded_uniform


def keys(num_clips: int, **options: int | None) -> list[list[ItemKey]]:
    return list(TrainingBatches(num_clips, **{"batch_size": 8, "total_steps": 7, **options}))


def steps(num_clips: int, *, world_size: int, accumulate: int, **options: int) -> list[set[ItemKey]]:
    """The keys of each optimizer step, over all processes and accumulation steps."""
    ranks = [
        keys(num_clips, world_size=world_size, rank=rank, accumulate=accumulate, **options)
        for rank in range(world_size)
    ]
    assert all(len(batch) == 8 // (world_size * accumulate) for rank in ranks for batch in rank)
    return [
        {key for rank in ranks for batch in rank[begin : begin + accumulate] for key in batch}
        for begin in range(0, len(ranks[0]), accumulate)
    ]


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 2), (8, 1)])
def test_a_step_is_the_same_for_any_number_of_processes(world_size: int, accumulate: int) -> None:
    expected = [set(batch) for batch in keys(20)]
    assert all(len(step) == 8 for step in expected)
    assert steps(20, world_size=world_size, accumulate=accumulate) == expected


@pytest.mark.parametrize("start_step", [1, 2, 3, 6, 7])
def test_resumed_batches_go_on_where_they_stopped(start_step: int) -> None:
    assert keys(20, start_step=start_step, accumulate=2) == keys(20, accumulate=2)[2 * start_step :]


def test_an_epoch_takes_each_clip_once_and_another_order_each_time() -> None:
    batches = keys(16, total_steps=4)
    first, second = ([key.clip_id for batch in batches[i : i + 2] for key in batch] for i in (0, 2))
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second
    assert [key.epoch for batch in batches for key in batch] == [0] * 16 + [1] * 16
    assert [key.position for batch in batches[2:] for key in batch] == list(range(16))
    assert keys(16, seed=1) != keys(16)


def test_a_larger_epoch_repeats_all_clips_evenly() -> None:
    order = epoch_order(5, 23, seed=0, epoch=0)
    assert len(order) == 23
    assert set(torch.bincount(order).tolist()) == {4, 5}
    assert all(sorted(order[i : i + 5].tolist()) == list(range(5)) for i in range(0, 20, 5))
    assert TrainingBatches(5, batch_size=8, epoch_size=23).steps_per_epoch == 2


def test_a_smaller_epoch_takes_other_clips_each_time() -> None:
    epochs = [epoch_order(100, 10, seed=0, epoch=epoch).tolist() for epoch in range(20)]
    assert all(len(set(order)) == 10 for order in epochs)
    assert len({clip for order in epochs for clip in order}) > 50


def test_length_and_endlessness() -> None:
    assert len(TrainingBatches(20, batch_size=8, accumulate=2, total_steps=7, start_step=3)) == 8
    assert len(list(islice(TrainingBatches(20, batch_size=8), 100))) == 100


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(RecipeError, match=r"train\.batch_size must be a multiple .* \(2 x 3\), but is 8"):
        TrainingBatches(20, batch_size=8, accumulate=2, world_size=3)
    with pytest.raises(RecipeError, match=r"has 7 clips for a batch of 8; .* data\.epoch_size to 8"):
        TrainingBatches(7, batch_size=8)


def test_generators_differ_in_each_part_of_the_key() -> None:
    numbers = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = {
        torch.rand(1, generator=seeded_generator(stream, seed=s, epoch=e, position=p)).item()
        for stream in Stream
        for s, e, p in numbers
    }
    assert len(draws) == len(numbers) * len(Stream)


def test_clips_that_count_more_than_once() -> None:
    draws = torch.tensor([0, 1, 1, 1, 2])
    batches = TrainingBatches(3, draws=draws, batch_size=5, total_steps=2)
    assert batches.steps_per_epoch == 1
    epochs = list(batches)
    assert [sorted(key.clip_id for key in epoch) for epoch in epochs] == [[0, 1, 1, 1, 2]] * 2
    assert all(
        len({key.position for key in epoch}) == 5 for epoch in epochs
    )  # each with a crop and a mask of its own


def test_weighted_sampling_takes_no_clip_twice_and_heavy_ones_as_often_as_their_weight_says() -> None:
    weights = torch.ones(200)
    weights[:20] = 9.0  # half of the total weight
    epochs = [epoch_order(200, 20, seed=0, epoch=epoch, weights=weights) for epoch in range(300)]
    assert all(len(order.unique()) == 20 for order in epochs)
    # 20 draws of 200, one after the other without replacement; the expectation comes from the same process by numpy.
    random = np.random.default_rng(0)
    drawn = [random.choice(200, 20, replace=False, p=(weights / weights.sum()).numpy()) for _ in range(2000)]
    expected = np.mean([(ids < 20).sum() for ids in drawn])
    assert np.mean([int((order < 20).sum()) for order in epochs]) == pytest.approx(expected, abs=0.5)


def test_weighted_batches_are_the_same_for_any_number_of_processes_and_from_any_step() -> None:
    draws = torch.arange(50).repeat_interleave(2)
    settings: dict[str, Any] = {"draws": draws, "weights": (draws + 1).double(), "epoch_size": 24, "seed": 3}
    whole = list(TrainingBatches(50, batch_size=8, total_steps=7, **settings))
    resumed = list(TrainingBatches(50, batch_size=8, start_step=4, total_steps=7, **settings))
    assert resumed == whole[4:]
    ranks = [
        list(TrainingBatches(50, batch_size=8, rank=rank, world_size=2, total_steps=7, **settings))
        for rank in range(2)
    ]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole


def test_weighted_batches_repeat_and_differ_by_epoch() -> None:
    def keys() -> list[list[ItemKey]]:
        weights = torch.arange(1, 51).double()
        batches = TrainingBatches(50, weights=weights, epoch_size=20, batch_size=10, seed=3, total_steps=4)
        return list(batches)

    first = keys()
    assert first == keys()
    assert {key.clip_id for batch in first[:2] for key in batch} != {
        key.clip_id for batch in first[2:] for key in batch
    }


def splitmix64(state: int, count: int) -> list[int]:
    """The generator as its paper has it."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        numbers.append(z ^ z >> 31)
    return numbers


def test_uniform_numbers_of_clips_are_those_of_splitmix64_and_of_each_clip_alone() -> None:
    seeds = torch.tensor([0, 1, 2**62 + 12345])
    drawn = seeded_uniform(seeds, 1000)
    for seed, row in zip(seeds.tolist(), drawn, strict=True):
        assert row.tolist() == [(number >> 40) / 2**24 for number in splitmix64(seed, 1000)]
    assert torch.equal(seeded_uniform(seeds[1:2], 1000)[0], drawn[1])
    other = seeded_uniform(seeds, 1000, use=1)
    assert float(other.min()) >= 0.0 and float(other.max()) < 1.0 and abs(float(other.mean()) - 0.5) < 0.02
    assert abs(float(torch.corrcoef(torch.stack([drawn[0], other[0]]))[0, 1])) < 0.1
