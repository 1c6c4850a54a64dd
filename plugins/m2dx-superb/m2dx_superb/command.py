"""`m2dx superb`: arguments only."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()


class TaskName(Enum):
    """The tasks of the paper's table X."""

    PR = "pr"
    KS = "ks"
    IC = "ic"
    SID = "sid"
    ER = "er"
    ASV = "asv"


TaskArgument = Annotated[
    TaskName,
    typer.Argument(
        metavar="TASK",
        help="pr (phonemes), ks (keywords), ic (intents), sid (speakers), er (emotions), asv (verification).",
        show_default=False,
    ),
]
EncoderOption = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Run folder, export, checkpoint or published checkpoint; zeros for the control.",
        show_default=False,
    ),
]
DataOption = Annotated[
    Path, typer.Option(metavar="DIR", help="The corpus in its official layout.", show_default=False)
]
S3prlArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[-- ARGUMENTS]",
        help="For s3prl, such as: -- --train.total_steps 1000 --num_workers 4",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of runs and results.jsonl.")
]
CheckoutOption = Annotated[
    Path | None,
    typer.Option(
        "--s3prl",
        metavar="DIR",
        help="Checkout of s3prl's repository: score with run_downstream, as for the published tables.",
        show_default=False,
    ),
]
FoldOption = Annotated[
    int | None, typer.Option(min=1, max=5, help="Only this session of er.", show_default=False)
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch the task's lists that DIR lacks.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Score again if the task was scored with other arguments.")
]


@commands.command()
def superb(
    task: TaskArgument,
    encoder: EncoderOption,
    data: DataOption,
    arguments: S3prlArguments = None,
    output: OutputOption = Path("runs"),
    s3prl: CheckoutOption = None,
    fold: FoldOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    download: DownloadOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Score an encoder on a task of SUPERB: s3prl trains on its frozen features, and m2dx records the score."""
    if fold is not None and task is not TaskName.ER:
        raise typer.BadParameter("--fold is of the task er only")
    from m2dx_superb.tasks import TASKS, check_data

    check_data(TASKS[task.value], data)
    from m2dx_superb.scoring import Request, score

    request = Request(
        task=task.value,
        encoder=encoder,
        data=data,
        output=output,
        checkout=s3prl,
        folds=() if fold is None else (fold,),
        device=device,
        download=download,
        overwrite=overwrite,
        arguments=tuple(arguments or ()),
    )
    typer.echo(score(request))
