"""A Slurm script whose array tasks each train a point of a sweep."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from m2dx.contract.errors import RecipeError
from m2dx.sweep.folder import SweepFolder

SECONDS_TO_SAVE = 120
"""How long before its time limit a task is told to save."""

_SCRIPT = """\
#!/bin/bash
# Written by m2dx sweep. Submit it with: sbatch {file}
# Each array task trains one point, under torchrun where it has several processes. A task that is requeued goes on from
# the newest checkpoint of its run; a point that is finished already ends at once.
{options}

points=(
{points}
)
point=${{points[${{SLURM_ARRAY_TASK_ID:?must be set by sbatch --array}}]}}
cd {here} || exit 1

{command} --point "$point" &
sweep=$!

# Before the time limit Slurm sends USR1, as asked for above: the run saves, and its task goes back into the queue.
requeue=no
interrupted=yes
trap 'interrupted=yes; requeue=yes; kill -TERM "$sweep" 2>/dev/null' USR1
trap 'interrupted=yes; kill -TERM "$sweep" 2>/dev/null' TERM INT
while [ "$interrupted" = yes ]; do  # a signal ends `wait` early
  interrupted=no
  wait "$sweep"
  code=$?
done
if [ "$requeue" = yes ] && [ "$code" -eq 143 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def slurm_script(
    folder: SweepFolder,
    points: Sequence[str],
    *,
    file: Path,
    processes: int,
    jobs: int | None,
    options: Sequence[str] = (),
) -> str:
    """The script for some points; `jobs` tasks at a time at most, and a line `#SBATCH` for each of the options.

    RecipeError for an option of several lines, or one that the script sets itself.
    """
    for option in options:
        if "\n" in option or not option.startswith("-"):
            raise RecipeError(
                f"--sbatch must be options of sbatch in one line, such as --time=24:00:00, but is {option!r}"
            )
        if option.split("=")[0].split()[0] in ("--array", "-a"):
            raise RecipeError(
                f"--sbatch must leave --array to m2dx, but is {option!r}; limit its tasks with --jobs"
            )
    at_once = "" if jobs is None else f"%{jobs}"
    own = [
        f"--job-name={folder.path.name}",
        f"--array=0-{len(points) - 1}{at_once}",
        f'--output="{folder.path}/logs/slurm-%A_%a.log"',
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{SECONDS_TO_SAVE}",
    ]
    command = [sys.executable, "-m", "m2dx", "sweep", str(folder.path), "--processes", str(processes)]
    return _SCRIPT.format(
        file=shlex.quote(str(file)),
        options="\n".join(f"#SBATCH {option}" for option in [*own, *options]),
        points="\n".join(f"  {shlex.quote(point)}" for point in points),
        here=shlex.quote(str(Path.cwd())),
        command=shlex.join(command),
    )
