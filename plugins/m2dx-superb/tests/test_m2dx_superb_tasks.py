"""The tasks, trained and evaluated by s3prl on tones in the corpora's official layouts."""

import subprocess
import sys
from pathlib import Path

import pytest
from m2dx_superb.jobs import write_job
from m2dx_superb.tasks import TASKS
from superb_checkout import write_checkout
from superb_jobs import CHANCE, make_job, run_jobs


def test_tasks_tell_tones_apart_and_a_control_does_not(sample: Path, tmp_path: Path) -> None:
    """One process runs three tasks with an encoder, and a control, as it imports s3prl; the slow tests have all six."""
    tasks = ("ks", "sid", "er")
    jobs = [make_job(sample, tmp_path, task) for task in tasks]
    *found, zeros = run_jobs(*jobs, make_job(sample, tmp_path, "er", control=True))
    for task, outcome in zip(tasks, found, strict=True):
        assert outcome.value > CHANCE[task] + 0.3, task
    # The statistics are those of the training list: 12 words by 3 speakers and 2 + 2 s of noise; 3 of 5 speakers' clips
    # each; 0.8 of the 40 of four sessions.
    assert [outcome.statistics.clips for outcome in found if outcome.statistics] == [40, 15, 32]
    assert found[0].settings["lr"] == 0.01
    # A constant answer is right as often as its class occurs in the test part.
    assert zeros.value <= CHANCE["er"] + 1e-6 and zeros.statistics is None


@pytest.mark.slow
@pytest.mark.usefixtures("sox")
def test_all_six_tasks_by_the_package_alone(sample: Path, tmp_path: Path) -> None:
    outcomes = run_jobs(*(make_job(sample, tmp_path, task) for task in TASKS))
    assert [outcome.statistics is not None for outcome in outcomes] == [True] * 6
    values = dict(zip(TASKS, (outcome.value for outcome in outcomes), strict=True))
    assert min(values[task] for task in ("ks", "ic", "sid", "er")) > 0.5
    assert 0 <= values["asv"] <= 0.5 and 0 < values["pr"] <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("sox")
def test_all_six_controls_score_at_chance(sample: Path, tmp_path: Path) -> None:
    outcomes = run_jobs(*(make_job(sample, tmp_path, task, control=True) for task in TASKS))
    for task, outcome in zip(TASKS, outcomes, strict=True):
        if TASKS[task].metric == "accuracy":
            assert outcome.value <= CHANCE[task] + 1e-6, task
        else:  # nothing is recognised, and all trials have one score
            assert outcome.value >= CHANCE[task], task


@pytest.mark.slow
@pytest.mark.usefixtures("sox")
@pytest.mark.parametrize("control", [False, True])
def test_all_six_tasks_by_run_downstream(sample: Path, tmp_path: Path, control: bool) -> None:
    import s3prl

    checkout = write_checkout(tmp_path / "checkout", Path(s3prl.__file__).parent, lexicons=sample / "pr")
    arguments = ("-o", "config.runner.total_steps=10,,config.optimizer.lr=0.01")
    for task in TASKS:  # a process each, as from the command line
        job = make_job(sample, tmp_path, task, control=control, checkout=str(checkout), arguments=arguments)
        (outcome,) = run_jobs(job)
        assert outcome.settings["lr"] == 0.01 and outcome.settings["total_steps"] == 10
        assert (outcome.statistics is None) == control
        if TASKS[task].metric == "accuracy":
            assert outcome.value <= CHANCE[task] + 1e-6 if control else outcome.value > CHANCE[task]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--train.total_steps",), "must be pairs such as"),
        (("--verses", "3"), "must be of SuperbER, but --verses is none"),
        (("--build_model.upstream_trainable", "True"), "the encoder is frozen"),
    ],
)
def test_arguments_that_s3prl_has_not_are_refused(
    sample: Path, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    file = write_job(make_job(sample, tmp_path, "er", arguments=arguments))
    command = [sys.executable, "-P", "-m", "m2dx_superb.worker", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert reason in done.stderr and "Traceback" not in done.stderr
