"""Jobs of few steps on the sample, and the process that runs them."""

import subprocess
import sys
from pathlib import Path

from m2dx_superb.jobs import Job, Outcome, read_outcome, write_job

FEW_STEPS = (
    *("--num_workers", "0", "--train.total_steps", "10", "--train.log_step", "5", "--train.save_step", "5"),
    *("--train.gradient_accumulate", "1", "--build_optimizer.conf.lr", "0.01"),
)
"""So few that they learn the tones of the sample, and no more."""

CHANCE = {"ks": 1 / 12, "ic": 1 / 3, "sid": 1 / 5, "er": 2 / 5, "asv": 0.5, "pr": 0.9}
"""Accuracy of the answer that is most often right in the test part; for asv and pr, the error of knowing nothing."""


def make_job(sample: Path, folder: Path, task: str, *, control: bool = False, **options: object) -> Job:
    """A job of few steps on the sample."""
    arguments = (*FEW_STEPS, "--train.eval_step", "1000" if task == "asv" else "5")
    settings = {
        "task": task,
        "encoder": "zeros" if control else str(sample / "encoder"),
        "sha256": "0" * 64,
        "data": str(sample / task),
        "folder": str(folder / f"{task}{'-zeros' if control else ''}"),
        "cache": str(folder / "cache" / task),
        "device": "cpu",
        "arguments": arguments,
        "fold": 1 if task == "er" else None,
    }
    return Job(**{**settings, **options})  # type: ignore[arg-type]


def run_jobs(*jobs: Job) -> list[Outcome]:
    """Outcomes of jobs that one process runs."""
    files = [str(write_job(job)) for job in jobs]
    command = [sys.executable, "-P", "-W", "ignore", "-m", "m2dx_superb.worker", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = [read_outcome(job) for job in jobs]
    assert None not in outcomes
    return [outcome for outcome in outcomes if outcome is not None]
