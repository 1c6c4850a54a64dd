"""A Slurm script whose array tasks each train a point of a sweep."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from m2dx.contract.errors import RecipeError

SECONDS_TO_SAVE = 120
"""A task saves this long before its time limit."""
SCRIPT_MARK = "# Written by m2dx sweep"

_SCRIPT = """\
#!/bin/bash
# Written by m2dx sweep. Submit it with: sbatch {file}
# Each array task trains one point, under torchrun for several processes. A requeued task resumes from the newest
# checkpoint of its run.
{options}

commands=(
{commands}
)
command=${{commands[${{SLURM_ARRAY_TASK_ID:?must be set by sbatch --array}}]}}
cd {here} || exit 1

eval "exec $command" &
training=$!

# Before the time limit Slurm sends USR1 (see --signal above): the run saves, and its task goes back into the queue.
requeue=no
interrupted=yes
trap 'interrupted=yes; requeue=yes; kill -TERM "$training" 2>/dev/null' USR1
trap 'interrupted=yes; kill -TERM "$training" 2>/dev/null' TERM INT
while [ "$interrupted" = yes ]; do  # a signal ends `wait` early
  interrupted=no
  wait "$training"
  code=$?
done
if [ "$requeue" = yes ] && [ "$code" -ne 0 ]; then  # torchrun ends with 1
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def check_script(file: Path) -> None:
    """Raises RecipeError if the file exists and m2dx sweep has not written it."""
    if file.exists() and SCRIPT_MARK not in file.read_text(encoding="utf-8", errors="replace"):
        raise RecipeError(
            f"{file} exists already, and m2dx sweep has not written it; give --slurm another file"
        )


def slurm_script(
    folder: Path,
    commands: Sequence[Sequence[str]],
    *,
    file: Path,
    jobs: int | None,
    options: Sequence[str] = (),
) -> str:
    """The script that runs a command in each task, at most `jobs` at a time, with a line `#SBATCH` per option."""
    log = str(folder).replace("%", "%%")
    own = [
        f'--job-name="{folder.name}"',
        f"--array=0-{len(commands) - 1}{'' if jobs is None else f'%{jobs}'}",
        f'--output="{log}/logs/slurm-%A_%a.log"',
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{SECONDS_TO_SAVE}",
    ]
    return _SCRIPT.format(
        file=shlex.quote(str(file)),
        options="\n".join(f"#SBATCH {option}" for option in [*own, *options]),
        commands="\n".join(f"  {shlex.quote(shlex.join(command))}" for command in commands),
        here=shlex.quote(str(Path.cwd())),
    )
