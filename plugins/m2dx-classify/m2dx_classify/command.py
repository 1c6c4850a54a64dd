"""`m2dx classify`: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2dx.cli.shared import AudioInputs, DeviceOption, terminal
from m2dx.contract.package import find_encoder
from m2dx_classify import STATISTICS

if TYPE_CHECKING:
    from m2dx import AudioClassifier

commands = typer.Typer(add_completion=False)


def _model_of(text: str) -> Path:
    """The path of a model; `STATISTICS` of the text `log-mel` (a folder of that name is `./log-mel`)."""
    return STATISTICS if text == "log-mel" else find_encoder(text)


@commands.command()
def classify(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            parser=_model_of,
            help="Run, encoder, starter or log-mel, or folder of a classifier.",
        ),
    ],
    files: AudioInputs = [],  # noqa: B006
    train: Annotated[
        Path | None,
        typer.Option("--train", help="Labelled clips to fit a classifier to: a list, or a folder per class."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Which labelled clips of the run, if it has several.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="New folder for the classifier, to use it again.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file to write; default the terminal.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="All of each file, a row per segment, not only its start.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Write the probability of each label in audio files as a CSV table. Fits a classifier unless MODEL is one."""
    import csv
    import sys
    from functools import partial

    import m2dx
    from m2dx.cli.encoders import progress, report_unreadable
    from m2dx.contract.atomic import replace_file
    from m2dx.contract.wording import counted
    from m2dx.data.inputs import clips_of_inputs
    from m2dx.encoder.files import UnreadableFiles, check_table, csv_table
    from m2dx_classify.fitting import check_request
    from m2dx_classify.rows import classify_clips

    fits = check_request(model, train=train, task=task, save=save, files=files)
    clips = clips_of_inputs(files) if files else []
    if output is not None:
        read = [*files, *([train] if train else []), *(clip.path for clip in clips)]
        check_table(output, read, suffixes=(".csv",))
    fit = partial(_fitted, model, train=train, task=task, save=save, device=device)
    classifier = fit() if fits else m2dx.load_classifier(model)
    if not clips:
        return
    bad: UnreadableFiles = []
    with progress(len(clips), classifier, device) as line:
        rows = classify_clips(classifier, clips, whole=whole, bad=bad, progress=line.update)
        if output is None:
            csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        else:
            replace_file(output, lambda file: csv_table(file).writerows(rows))
            terminal().print(f"{counted(len(clips) - len(bad), 'clip')} classified in {output}")
    report_unreadable(bad)


def _fitted(
    model: Path, *, train: Path | None, task: str | None, save: Path | None, device: str
) -> AudioClassifier:
    """A classifier of labelled clips; tells what its test says, and keeps it in `save`."""
    import m2dx
    from m2dx_classify.fitting import fit_classifier
    from m2dx_classify.sources import task_of_list, task_of_run

    labelled = task_of_run(model, task, m2dx.PluginHost.discover()) if train is None else task_of_list(train)
    fitted = fit_classifier(model, labelled, device=device)
    typer.echo(fitted.summary, err=True)
    if save is not None:
        fitted.save(save)
        typer.echo(f"classifier: {save}", err=True)
    return fitted.classifier
