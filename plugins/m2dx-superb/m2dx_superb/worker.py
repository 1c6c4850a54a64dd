"""The process that runs s3prl: `python -m m2dx_superb.worker JOB...`, where a JOB is a file of `m2dx_superb.jobs`."""

from __future__ import annotations

import logging
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from m2dx import M2dxError
from m2dx_superb.jobs import Job, read_job, write_outcome
from m2dx_superb.repairs import apply_repairs


def main() -> None:
    """Runs the jobs one after the other; the first that fails ends it."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of s3prl, which is what it is
    jobs = [read_job(Path(path)) for path in sys.argv[1:]]
    try:
        for job in jobs:
            run_job(job)
    except M2dxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def run_job(job: Job) -> None:
    """Runs a job and writes its outcome, if it has one, into its folder."""
    prepare(job)
    outcome = _run(job)
    if outcome is not None:
        write_outcome(job, outcome)


def _run(job: Job) -> Any:
    if job.checkout is None:
        from m2dx_superb.problems import run_problem

        return run_problem(job)
    from m2dx_superb.classic import run_classic

    return run_classic(job)


def prepare(job: Job) -> None:
    """Repairs what s3prl needs and registers the upstream, in this process."""
    if job.task == "asv":
        from m2dx_superb.sox import check_program

        check_program()
    if "s3prl" in sys.modules:
        return
    apply_repairs()
    if job.checkout is not None:
        sys.path.insert(0, job.checkout)
    import s3prl

    from m2dx_superb.upstream import NAME, build_upstream

    # Not s3prl's own module of this name: it imports some forty upstreams and their packages, none of which is used.
    hub = types.ModuleType("s3prl.hub")
    setattr(hub, NAME, build_upstream)
    s3prl.hub = sys.modules["s3prl.hub"] = hub


if __name__ == "__main__":
    main()
