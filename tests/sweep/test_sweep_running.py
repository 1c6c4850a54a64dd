"""How a sweep runs its points: what fails, is stopped, is at work elsewhere, or is finished already.

The runs are small scripts in place of `m2dx train`; test_sweep_whole.py has real ones.
"""

import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from m2dx.contract.errors import RecipeError
from m2dx.sweep import running
from m2dx.sweep.beginning import Sweep, write_beginning
from m2dx.sweep.folder import Attempt, State, SweepFolder
from m2dx.sweep.points import Plan
from m2dx.sweep.processes import gpu_groups, train_command
from m2dx.sweep.running import Outcome, Runner, last_lines, minutes

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path

recipe, resume = Path(sys.argv[1]), "--resume" in sys.argv
run, doing = recipe.parents[1] / recipe.stem, (recipe.parents[1] / f"{recipe.stem}.does").read_text()
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
        if all((recipe.parents[1] / other / "met").exists() for other in ("seed-0", "seed-1")):
            break
        time.sleep(0.1)
    else:
        sys.exit(1)
if doing == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (run / "waits").touch()
    time.sleep(60)
(run / "encoder").mkdir()
(run / "encoder" / "config.json").touch()
(run / "summary.json").write_text(json.dumps({"stopped_by": None, "at": time.time()}))
"""

Make = Callable[..., Sweep]


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=200, file=io.StringIO(), markup=False)


@pytest.fixture
def make(plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Begins a sweep over seeds, of which each does what it is told."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def command(recipe: Path, *, processes: int, resume: bool) -> list[str]:
        return [sys.executable, str(script), str(recipe), *(["--resume"] if resume else [])]

    monkeypatch.setattr(running, "train_command", command)

    def begin(*doing: str, device: str = "cpu") -> Sweep:
        seeds = range(max(len(doing), 2))  # a sweep has two points at least
        planned = plan(f"seed={','.join(map(str, seeds))}", f"train.device={device}")
        write_beginning(planned, tmp_path / "tiny.yaml")
        for number, what in enumerate(doing):
            (planned.folder / f"seed-{number}.does").write_text(what)
        return Sweep(SweepFolder(planned.folder), planned.points[: len(doing)])

    return begin


def run(sweep: Sweep, console: Console, *, jobs: int = 1) -> Outcome:
    return Runner(sweep, processes=1, jobs=jobs, console=console).run(sweep.points)


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
    sweep = make("fail", "die", "finish")
    outcome = run(sweep, console)
    states = {"seed-0": State.FAILED, "seed-1": State.FAILED, "seed-2": State.FINISHED}
    assert outcome.states == states and outcome.exit_code == 1
    assert {name: sweep.folder.state(name) for name in states} == states
    text = console.export_text()
    assert "seed-0: failed, exit code 1: " in text and "    error: it broke\n    here\n" in text
    assert "seed-1: failed, killed by SIGKILL (often for lack of memory): " in text
    assert re.search(r"seed-2: finished in \d+ s \(3 of 3\)", text)
    attempt = sweep.folder.read_attempt("seed-1")
    assert attempt is not None and (attempt.outcome, attempt.code) == (State.FAILED, -signal.SIGKILL)


def test_what_is_finished_is_left_and_what_failed_is_tried_again(make: Make, console: Console) -> None:
    sweep = make("finish", "fail")
    run(sweep, console)
    before = (sweep.folder.run("seed-0") / "summary.json").read_text()
    (sweep.folder.path / "seed-1.does").write_text("finish")
    assert run(sweep, console).exit_code == 0
    assert (sweep.folder.run("seed-0") / "summary.json").read_text() == before
    assert "seed-0: finished before (1 of 2)" in console.export_text()
    assert sweep.folder.log("seed-1").read_text().startswith("devices None resume False\nerror: it broke")


def test_ctrl_c_has_the_run_at_work_save_and_it_goes_on_from_there(
    make: Make, console: Console, interrupts: Callable[[Path, float], None]
) -> None:
    sweep = make("finish", "wait", "finish")
    interrupts(sweep.folder.run("seed-1") / "waits", 0.0)
    outcome = run(sweep, console)
    assert outcome.exit_code == 130
    assert outcome.states == {"seed-0": State.FINISHED, "seed-1": State.UNFINISHED, "seed-2": State.NEW}
    assert "seed-1: stopped, saved at step 7" in console.export_text(clear=False)
    assert run(sweep, console).exit_code == 0
    assert "seed-1: goes on from step 7" in console.export_text()
    assert "resume True" in sweep.folder.log("seed-1").read_text()


def test_a_second_ctrl_c_ends_what_does_not_stop(
    make: Make, console: Console, interrupts: Callable[[Path, float], None]
) -> None:
    sweep = make("hang")
    waits = sweep.folder.run("seed-0") / "waits"
    interrupts(waits, 0.0)
    interrupts(waits, 1.3)
    assert run(sweep, console).states == {"seed-0": State.UNFINISHED}  # it would have finished after a minute


def test_runs_side_by_side_are_on_gpus_of_their_own(
    make: Make, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "visible_gpus", lambda: ["3", "5"])
    sweep = make("meet", "meet", device="auto")
    assert run(sweep, console, jobs=2).exit_code == 0
    devices = [sweep.folder.log(name).read_text().split()[1] for name in ("seed-0", "seed-1")]
    assert sorted(devices) == ["3", "5"]


def test_a_point_that_another_process_trains_is_left_out(make: Make, console: Console) -> None:
    sweep = make("finish", "finish")
    lock = sweep.folder.lock("seed-0")
    assert lock is not None and sweep.folder.state("seed-0") is State.RUNNING
    outcome = run(sweep, console)
    assert outcome.states == {"seed-0": State.RUNNING, "seed-1": State.FINISHED} and outcome.exit_code == 1
    assert "seed-0: left out: another process is training it" in console.export_text()
    os.close(lock)
    assert sweep.folder.state("seed-0") is State.NEW


def test_the_state_is_that_of_the_files(make: Make) -> None:
    folder = make("finish").folder
    write = {
        "recipe.yaml": "{}",
        "summary.json": '{"stopped_by": "SIGINT"}',
        "encoder/config.json": "{}",
        "scores.json": "[]",
    }

    def state_with(*names: str, **changes: str) -> State:
        for name in names:
            file = folder.run("seed-0") / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text({**write, **changes}[name])
        return folder.state("seed-0")

    assert state_with() is State.NEW
    assert state_with("recipe.yaml") is State.UNFINISHED
    assert state_with("summary.json", "encoder/config.json") is State.UNFINISHED
    assert state_with("summary.json", **{"summary.json": '{"stopped_by": null}'}) is State.FINISHED
    text = folder.recipe("seed-0").read_text()
    folder.recipe("seed-0").write_text(text.replace("\n  tasks: {}", "\n  tasks: {a: 1}"))
    assert state_with() is State.UNFINISHED  # not scored yet
    assert state_with("scores.json") is State.FINISHED
    failed = Attempt(State.FAILED, 1, 1.0, "now", "here", ())
    folder.write_attempt("seed-0", failed)
    assert state_with() is State.FAILED  # say, in the report at the end
    later = time.time() + 5
    os.utime(folder.run("seed-0") / "summary.json", (later, later))
    assert state_with() is State.FINISHED  # trained on by hand


def test_gpus_are_shared_out() -> None:
    assert gpu_groups(["0", "1", "2", "3"], jobs=2, processes=2) == ["0,1", "2,3"]
    assert gpu_groups(["0", "1"], jobs=3, processes=1) == ["0", "1", "0"]
    assert gpu_groups(["0", "1"], jobs=1, processes=4) == [None]  # torchrun tells
    assert gpu_groups([], jobs=3, processes=2) == [None] * 3
    with pytest.raises(RecipeError, match="2 runs of 2 processes side by side need 4 GPUs, but there are 3"):
        gpu_groups(["0", "1", "2"], jobs=2, processes=2)


def test_a_run_is_a_process_of_its_own_or_torchruns() -> None:
    alone = train_command(Path("a.yaml"), processes=1, resume=False)
    assert alone == [sys.executable, "-m", "m2dx", "train", "a.yaml"]
    several = train_command(Path("a.yaml"), processes=4, resume=True)
    assert several[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m"),
        *("m2dx", "train", "a.yaml", "--resume"),
    ]


def test_the_end_of_a_log_is_the_last_error(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("error: of before\n")
    start = log.stat().st_size
    log.write_text("error: of before\n" + "step\n" * 3000 + "error: first\nerror: a\nb\n\n")
    assert last_lines(log, start) == ["error: a", "b"]
    assert last_lines(log, start, most=1) == ["b"]
    log.write_text("error: of before\n1\n2\n")
    assert last_lines(log, start) == ["1", "2"]
    assert last_lines(tmp_path / "none", 0) == []


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (90, "1.5 min"), (7200, "2.0 h")])
def test_times(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


def test_unreadable_notes_are_none(make: Make) -> None:
    folder = make("finish").folder
    folder.attempt_file("seed-0").write_text("{")
    assert folder.read_attempt("seed-0") is None
