"""Where memory runs out, the error says what was asked, what there is and what to set."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from m2dx.contract.errors import MemoryShortageError
from m2dx.evaluation.runner import evaluate
from m2dx.jobs.background_scoring import BackgroundScoring
from m2dx.training.memory import (
    Memory,
    control_groups,
    evaluation_advice,
    host_memory,
    is_shortage,
    memory_advice,
    training_advice,
    worker_was_killed,
)

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.65 GiB of which 1.21 GiB is "
    "free."
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")


def text_of(error: BaseException, advice: list[str] | None = None) -> str:
    with pytest.raises(MemoryShortageError) as raised, memory_advice("training", lambda: advice or ["this"]):
        raise error
    assert raised.value.__cause__ is error
    return str(raised.value)


def test_a_gpu_says_what_was_asked_and_what_it_has() -> None:
    text = text_of(torch.OutOfMemoryError(CUDA))
    assert (
        "during training: 2.50 GiB more was asked for, and the GPU has 23.65 GiB, 1.21 GiB of it free" in text
    )
    assert text.endswith("What helps:\n- this")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried "
                     "to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(12, "Cannot allocate memory"),
    ],
)  # fmt: skip
def test_each_kind_of_shortage_is_known(error: Exception) -> None:
    assert is_shortage(error)
    assert re.search(r"(4.00 GB more|more memory) was asked for, and .* free", text_of(error))


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("no memory"), OSError("no such file")]
)
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), memory_advice("training", list):
        raise error


def test_advice_for_training_names_the_next_accumulation(tiny_recipe: Any) -> None:
    for accumulate, following in ((1, 2), (4, 6), (12, 24)):
        recipe = tiny_recipe("train.batch_size=48", f"train.accumulate={accumulate}")
        assert training_advice(recipe, 2)[0].startswith(f"train.accumulate={following}: ")
    assert training_advice(tiny_recipe("train.batch_size=48", "train.accumulate=24"), 2)[0].startswith(
        "a smaller"
    )
    first, *rest = training_advice(tiny_recipe("train.batch_size=12", "train.accumulate=2"), 1)
    assert first.startswith(
        "train.accumulate=3: 4 clips at a time instead of 6, the effective batch of 12 stays"
    )
    assert any("precision=bf16" in line for line in rest) and any("--dry-run-memory" in line for line in rest)
    least = training_advice(tiny_recipe("train.accumulate=2", "train.precision=bf16"), 2)
    assert least[0].startswith("a smaller model") and "train.sharding=fsdp" in least[1]


def worker_error(cause: str | None, *, direct: bool = False) -> RuntimeError:
    """torch's error for a loading process that is gone: one with a cause, or, where it comes later, the cause alone."""
    known = None if cause is None else RuntimeError(f"DataLoader worker (pid 12) {cause}")
    if direct:
        assert known is not None
        return known
    error = RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly")
    error.__cause__ = known
    return error


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("cause", ["is killed by signal: Killed. ", None])
def test_a_killed_loading_process_is_explained(cause: str | None, direct: bool) -> None:
    error = worker_error(cause, direct=direct and cause is not None)
    assert worker_was_killed(error) and not is_shortage(error)
    text = text_of(error)
    assert "a loading process was killed during training" in text and "fewer loading processes" in text


@pytest.mark.parametrize(
    "cause",
    [
        "is killed by signal: Segmentation fault. ",
        "exited unexpectedly with exit code 1. Details are lost due to multiprocessing.",
    ],
)
@pytest.mark.parametrize("direct", [False, True])
def test_a_loading_process_that_crashes_has_its_own_error(cause: str, direct: bool) -> None:
    error = worker_error(cause, direct=direct)
    with pytest.raises(RuntimeError, match="DataLoader worker") as raised, memory_advice("training", list):
        raise error
    assert raised.value is error


def test_a_real_killed_loading_process_is_explained(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: Any
) -> None:
    import os

    from m2dx.data.crops import TrainingCrops
    from m2dx.jobs.train import _fit

    parent = os.getpid()

    def killed(self: Any, key: Any) -> None:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(TrainingCrops, "__getitem__", killed)
    with pytest.raises(MemoryShortageError, match="a loading process was killed during training"):
        _fit(make_trainer(tiny_recipe("data.workers=1")))


SHORT = """
import resource, sys
from pathlib import Path
from rich.console import Console
from m2dx.cli import main
from m2dx.training.trainer import Trainer
step = Trainer.train_step
def limited(self, batches):
    used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (int(used.split()[1]) * 1024 + 30 * 2**20,) * 2)
    return step(self, batches)
Trainer.train_step = limited
sys.argv = ["m2dx", "train", *sys.argv[1:]]
main()
"""


@LINUX
def test_a_real_shortage_on_the_cpu_is_told_without_a_trace(tiny_recipe: Any, tmp_path: Path) -> None:
    tiny_recipe()
    command = [sys.executable, "-c", SHORT, str(tmp_path / "tiny.yaml"), f"output={tmp_path}"]
    sizes = ["audio.crop_seconds=10.24", "train.batch_size=20", "data.epoch_size=20", "model.depth=4"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "error: memory ran out during training" in done.stderr
    assert (
        "- train.accumulate=2: 10 clips at a time instead of 20, the effective batch of 20 stays"
        in done.stderr
    )


def test_an_evaluator_that_runs_out_of_memory_is_named() -> None:
    class Hungry:
        settings = SimpleNamespace(batch_size=64, accumulate=2)

        def evaluate(self, *_: object, **__: object) -> None:
            raise torch.OutOfMemoryError(CUDA)

    task: Any = SimpleNamespace(name="birds")
    with pytest.raises(MemoryShortageError) as raised:
        evaluate({"e": lambda seed: None}, [task], {"fit": Hungry()}, seeds=(0,))  # type: ignore[dict-item,arg-type,return-value]
    assert "during evaluation (fit on birds)" in str(raised.value)
    assert "- evaluation.evaluators.fit.accumulate=4: each batch in 4 pieces instead of 2" in str(
        raised.value
    )
    assert "batch_size=32 instead of 64" in str(raised.value)
    assert evaluation_advice("knn", object())[0].startswith("train.device=cpu")


def test_a_killed_evaluation_process_is_explained(
    tiny_recipe: Any, tmp_path: Path, console: Any, caplog: Any
) -> None:
    section = tiny_recipe().evaluation.model_copy(update={"every": 100})
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    scoring = BackgroundScoring(tmp_path, section, console)
    scoring.command = lambda step, path: command
    with scoring:
        scoring.take(100)
        scoring.finish()
    assert "its process ended by SIGKILL" in caplog.text and "where memory runs out" in caplog.text


def test_limits_of_control_groups_count(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/slurm/job\n")
    job = tmp_path / "groups" / "slurm" / "job"
    job.mkdir(parents=True)
    for folder, most in ((job, "max"), (job.parent, str(8 * 2**30))):
        (folder / "memory.max").write_text(most)
        (folder / "memory.current").write_text(str(3 * 2**30))
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {2**30}\n")
    assert control_groups(tmp_path / "groups", own) == [Memory(8 * 2**30, 6 * 2**30)]
    assert control_groups(tmp_path / "groups", tmp_path / "none") == []


@LINUX
def test_the_machine_tells_its_memory() -> None:
    memory = host_memory()
    assert 0 < memory.available <= memory.total
