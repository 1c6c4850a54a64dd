"""The tasks, trained and evaluated by s3prl on tones in the corpora's official layouts."""

import subprocess
import sys
from pathlib import Path

import pytest
from m2dx_superb.jobs import Outcome, write_job
from m2dx_superb.tasks import TASKS
from superb_checkout import write_checkout
from superb_jobs import CHANCE, make_job, run_jobs


@pytest.fixture(scope="module")
def outcomes(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Of three tasks with an encoder, and of a control; one process runs them all, as it imports s3prl."""
    folder = tmp_path_factory.mktemp("runs")
    jobs = [make_job(sample, folder, task) for task in ("ks", "sid", "er")]
    jobs.append(make_job(sample, folder, "er", control=True))
    return dict(zip(("ks", "sid", "er", "er zeros"), run_jobs(*jobs), strict=True))


@pytest.mark.parametrize("task", ["ks", "sid", "er"])
def test_an_encoder_that_hears_tones_tells_them_apart(outcomes: dict[str, Outcome], task: str) -> None:
    assert outcomes[task].value > CHANCE[task] + 0.3


def test_zeros_score_at_chance(outcomes: dict[str, Outcome]) -> None:
    """A constant answer is right as often as its class occurs in the test part; the slow tests have all six tasks."""
    assert outcomes["er zeros"].value <= CHANCE["er"] + 1e-6
    assert outcomes["er zeros"].statistics is None


def test_the_statistics_are_those_of_the_training_list(outcomes: dict[str, Outcome]) -> None:
    clips = {task: outcomes[task].statistics.clips for task in ("ks", "sid", "er")}  # type: ignore[union-attr]
    # 12 words by 3 speakers and 2 + 2 s of noise; 3 of 5 speakers' clips each; 0.8 of the 40 of four sessions
    assert clips == {"ks": 40, "sid": 15, "er": 32}
    assert outcomes["ks"].settings["lr"] == 0.01


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
