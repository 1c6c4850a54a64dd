"""How a sweep runs its points: what fails, is stopped, or is finished already.

The runs are small scripts in place of `m2dx train`; test_sweep_whole.py has real ones.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from m2dx_sweep import running as sweep
from m2dx_sweep.running import Point, last_lines, run_points
from m2dx_sweep.table import is_finished
from rich.console import Console

from m2dx.training.child import module_command

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path

run = Path(sys.argv[1])
doing = run.with_suffix(".does").read_text()
resume = (run / "checkpoints" / "step-00000007.pt").exists()
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
print("devices", os.environ.get("CUDA_VISIBLE_DEVICES"), "resume", resume, flush=True)
if doing == "fail":
    print("error: it broke\\nhere", flush=True)
    sys.exit(1)
if doing == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if doing == "wait" and not resume:
    signal.signal(signal.SIGTERM, lambda *_: ((run / "checkpoints" / "step-00000007.pt").touch(), os._exit(143)))
    (run / "waits").touch()
    time.sleep(60)
if doing == "meet":  # ends well only where both are at work at a time
    (run / "met").touch()
    for _ in range(600):
        if all((run.parent / other / "met").exists() for other in ("seed-0", "seed-1")):
            break
        time.sleep(0.1)
    else:
        sys.exit(1)
if doing == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (run / "waits").touch()
    time.sleep(60)
(run / "recipe.yaml").write_text("evaluation: {tasks: {}}")
(run / "encoder").mkdir()
(run / "encoder" / "config.json").touch()
(run / "summary.json").write_text(json.dumps({"stopped_by": None, "at": time.time()}))
"""

Make = Callable[..., list[Point]]


@pytest.fixture
def make(plan: Callable[..., list[Point]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Points of a sweep over seeds, of which each does what it is told."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def command(self: Point, processes: int) -> list[str]:
        return [sys.executable, str(script), str(self.folder)]

    monkeypatch.setattr(Point, "command", command)
    monkeypatch.setattr(sweep, "ending_with_us", list)

    def start(*doing: str) -> list[Point]:
        seeds = range(max(len(doing), 2))  # a sweep has two points at least
        points = plan(f"seed={','.join(map(str, seeds))}")
        (points[0].recipe.output / "logs").mkdir(parents=True)
        for point, what in zip(points, doing, strict=False):
            point.folder.with_suffix(".does").write_text(what)
        return points[: len(doing)]

    return start


def run(points: list[Point], console: Console, gpus: tuple[str | None, ...] = (None,)) -> int:
    return run_points(points, gpus, processes=1, console=console)


def states(points: list[Point]) -> list[bool]:
    return [is_finished(point.folder) for point in points]


@pytest.fixture
def interrupts() -> Iterator[Callable[[Path, float], None]]:
    """Sends this process a Ctrl-C some time after a file is there."""
    threads = []

    def send(file: Path, after: float) -> None:
        def wait() -> None:
            while not file.exists():
                time.sleep(0.02)
            time.sleep(after)
            os.kill(os.getpid(), signal.SIGINT)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()

    yield send
    for thread in threads:
        thread.join()


def test_a_run_that_fails_or_dies_leaves_the_others_alone(make: Make, console: Console) -> None:
    points = make("fail", "die", "finish")
    assert run(points, console) == 1 and states(points) == [False, False, True]
    text = console.export_text()
    assert "seed-0: failed, exit code 1: " in text and "    error: it broke\n    here\n" in text
    assert "seed-1: failed, killed by SIGKILL (often for lack of memory): " in text
    assert "seed-2: finished" in text


def test_ctrl_c_has_the_run_at_work_save_and_it_goes_on_from_there(
    make: Make, console: Console, interrupts: Callable[[Path, float], None]
) -> None:
    points = make("finish", "wait", "finish")
    interrupts(points[1].folder / "waits", 0.0)
    assert run(points, console) == 130
    assert states(points) == [True, False, False] and not points[2].folder.exists()
    assert "seed-1: stopped" in console.export_text(clear=False)
    assert run(points[1:], console) == 0 and states(points) == [True, True, True]
    assert "resume True" in points[1].log.read_text()


def test_a_second_ctrl_c_ends_what_does_not_stop(
    make: Make, console: Console, interrupts: Callable[[Path, float], None]
) -> None:
    points = make("hang")
    interrupts(points[0].folder / "waits", 0.0)
    interrupts(points[0].folder / "waits", 1.3)
    started = time.monotonic()
    assert run(points, console) == 130 and states(points) == [False]
    assert time.monotonic() < started + 50  # it would have ended after a minute


def test_runs_side_by_side_are_on_gpus_of_their_own(make: Make, console: Console) -> None:
    points = make("meet", "meet")
    assert run(points, console, ("3", "5")) == 0
    assert sorted(point.log.read_text().split()[1] for point in points) == ["3", "5"]


def test_a_run_is_finished_when_its_files_say_so(make: Make) -> None:
    folder = make("finish")[0].folder
    (folder / "encoder").mkdir(parents=True)

    def finished_with(name: str, text: str) -> bool:
        (folder / name).write_text(text)
        return is_finished(folder)

    assert not is_finished(folder)
    assert not finished_with("recipe.yaml", "evaluation: {tasks: {}}")
    assert not finished_with("summary.json", '{"stopped_by": "SIGINT"}')
    assert not finished_with("encoder/config.json", "{}")
    assert finished_with("summary.json", '{"stopped_by": null}')
    assert not finished_with("recipe.yaml", "evaluation: {tasks: {a: 1}}")  # not scored yet
    assert finished_with("scores.json", "[]")
    assert not finished_with("summary.json", "{")


def test_the_end_of_a_log_is_the_last_error(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("error: of before\n")
    start = log.stat().st_size
    log.write_text("error: of before\n" + "step\n" * 3000 + "error: first\nerror: a\nb\n\n")
    assert last_lines(log, start) == ["error: a", "b"]
    log.write_text("error: of before\n1\n2\n")
    assert last_lines(log, start) == ["1", "2"]


def test_gpus_are_named_as_the_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweep.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert sweep.visible_gpus() == ["3", "5"]


def test_a_run_ends_with_a_sweep_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = module_command("timeit", "-n1", "-r1", "print(flush=True); import time; time.sleep(60)")
    command = shlex.join(sweep.ending_with_us(sleeping)).replace(str(os.getpid()), "$$", 1)
    killed = subprocess.Popen(["bash", "-c", f"{command} & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    run = int(killed.stdout.readline())
    assert killed.stdout.readline() == "\n"  # it is at work
    os.kill(run, 0)
    killed.kill()
    killed.wait()
    for _ in range(500):
        with contextlib.suppress(ProcessLookupError):
            os.kill(run, 0)
            time.sleep(0.02)
            continue
        break
    else:
        pytest.fail("the run goes on")
