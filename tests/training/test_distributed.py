"""Processes find each other and their devices; test_shared_model.py trains in several."""

import logging
import weakref
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from m2dx.contract.errors import RecipeError, TrainingError
from m2dx.training.distributed import (
    DataParallel,
    Processes,
    _store_of_this_start,
    join_processes,
    pick_device,
)


def test_resuming_with_fewer_processes(
    tiny_recipe: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    trainer = make_trainer(recipe)
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, value])
    trainer.fit()
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING):
        assert make_trainer(recipe, resume=True).step == 3
    assert "1 processes now, 2 before" in caplog.text


def test_one_process_is_the_plain_case() -> None:
    processes = join_processes("cpu")
    assert (processes.rank, processes.world_size, processes.is_main) == (0, 1, True)
    values = torch.tensor([1.0, 2.0])
    assert processes.mean(values) is values
    assert processes.concat(values) is values
    assert processes.gather("x") == ["x"] and processes.from_main("y") == "y"
    processes.close()


def test_ddp_is_gone_when_the_processes_part(tiny_recipe: Any, make_trainer: Any, tmp_path: Path) -> None:
    """Where it held the group longer than Python does, a process hung at its end now and then."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        trainer = make_trainer(tiny_recipe("train.epochs=0.6"))
        trainer.parallel = DataParallel(trainer.model, trainer.processes)
        ddp = weakref.ref(trainer.parallel.forward)
        assert trainer.fit().steps == 3
        assert ddp() is None
    finally:
        dist.destroy_process_group()


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(RecipeError, match=r"torch sees no GPU; set train\.device=auto or cpu"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "empty", lambda *_, device: device)
    assert pick_device("auto") == torch.device("cuda")
    with pytest.raises(RecipeError, match=r"torch sees 1 GPU\(s\)"):
        pick_device("cuda:1")


TAKEN = (
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "CUDA error: out of memory",
    "CUDA error: all CUDA-capable devices are busy or unavailable",
)


@pytest.mark.parametrize("error", TAKEN)
@pytest.mark.parametrize(("name", "rank"), [("auto", None), ("cuda", None), ("cuda:0", None), ("auto", "0")])
def test_a_gpu_that_another_process_has_taken(
    error: str, name: str, rank: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two GPUs the first is taken (in exclusive mode, or full); `rank`: of two processes of torchrun."""

    def empty(size: int, *, device: torch.device) -> torch.Tensor:
        if (device.index or 0) == 0:
            raise RuntimeError(f"{error}\nCUDA kernel errors might be reported later")
        return torch.zeros(size)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", empty)
    if rank is not None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(RecipeError) as raised:
        join_processes(name)
    text = str(raised.value)
    assert (
        f"that GPU cannot be used ({error})" in text and "CUDA_VISIBLE_DEVICES=1" in text and "\n" not in text
    )
    assert pick_device("cuda:1") == torch.device("cuda:1")


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(RecipeError, match=r"train.device is cuda:1, but torch sees 1 GPU\(s\)"):
        join_processes("auto")


def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"must be cuda or auto with 2 processes.*but is cuda:1"):
        join_processes("cuda:1")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[gloo/transport/tcp/pair.cc:538] Read error [127.0.0.1]:2994: Connection reset by peer"
        ),
        RuntimeError("[gloo/transport/tcp/pair.cc:546] Connection closed by peer [127.0.0.1]:2994"),
        RuntimeError(
            "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 6000ms for recv operation to complete"
        ),
        dist.DistNetworkError("Failed to recv, got 0 bytes"),
    ],
)
def test_a_lost_process_is_an_error_that_says_so(error: Exception) -> None:
    several = Processes(0, 2, torch.device("cpu"))
    with (
        pytest.raises(
            TrainingError, match=r"2 processes must go on together, but another has ended.*--resume-or-begin"
        ),
        several.reporting_lost_processes(),
    ):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    several, alone = Processes(0, 2, torch.device("cpu")), Processes(0, 1, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="shapes"), several.reporting_lost_processes():
        raise RuntimeError("shapes do not match")
    for processes in (several, alone):
        with pytest.raises(RuntimeError, match="timed out"), processes.reporting_lost_processes():
            raise RuntimeError("a download timed out")


def test_a_start_after_another_has_a_store_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In torchrun's store the addresses of the dead would be found; with several machines a variable is needed."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": server.port, "RANK": 0, "WORLD_SIZE": 2}
    elastic = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": 3, "GROUP_WORLD_SIZE": 1}
    for key, value in (own | elastic).items():
        monkeypatch.setenv(key, str(value))
    seconds = timedelta(seconds=20)
    for count in (0, 1):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
        store = _store_of_this_start(seconds)
        assert store is not None and not store.check(["address"])
        store.set("address", "of this start")
    assert not caplog.text
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert _store_of_this_start(seconds) is None
    assert "needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in caplog.text
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    assert _store_of_this_start(seconds) is None
