"""Commands for a pre-trained encoder: evaluate, results, export, encode."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m2dx.cli import shared
from m2dx.cli.shared import terminal
from m2dx.cli.table_output import FormOption, OutputOption, check_table_options, print_table
from m2dx.cli.terminal import print_error, printable
from m2dx.contract.errors import PluginError
from m2dx.contract.package import find_encoder
from m2dx.contract.wording import counted

if TYPE_CHECKING:
    from torch.nn import Module

    from m2dx.contract.progress import ProgressLine
    from m2dx.encoder.files import UnreadableFiles

commands = typer.Typer()

MOST_PRINTED = 20


def report_unreadable(files: UnreadableFiles) -> None:
    """Prints what could not be read, and ends with exit code 1 if there is any."""
    for path, reason in files[:MOST_PRINTED]:
        print_error(f"{path}: {reason}")
    if len(files) > MOST_PRINTED:
        print_error(f"{len(files)} files could not be read; the first {MOST_PRINTED} are named above")
    if files:
        raise typer.Exit(1)


def progress(count: int, network: Module, device: str) -> ProgressLine:
    """Brings the network to the device, and says so; the line on stderr is for the clips that are done."""
    from m2dx.contract.progress import ProgressLine
    from m2dx.training.distributed import pick_device

    chosen = pick_device(device, field="--device")
    network.to(chosen)
    console = terminal(stderr=True)
    console.print(f"{counted(count, 'clip')} on {chosen}")
    return ProgressLine(console, "clip")


@commands.command()
@shared.with_recipe_places
def evaluate(
    encoder: shared.EncoderPath, recipe: shared.RecipeFile, overrides: shared.Overrides = None
) -> None:
    """Score an encoder and the baselines, as the recipe's evaluation section says."""
    _, loaded = shared.load_with_plugins(recipe, overrides)
    import m2dx

    found = m2dx.evaluate(encoder, loaded, console=terminal())
    terminal().print(f"scores: {found.folder / 'scores.json'}")


commands.command("eval", help="The same as evaluate.")(evaluate)


@commands.command()
def results(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES", help="Files of results, or folders of runs; default runs/results.jsonl."
        ),
    ] = None,
    table: Annotated[str | None, typer.Option(help="Published table; list shows their names.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="Another metric than a record's own, such as auroc or macro_f1.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Include older records of a score.")] = False,
    form: FormOption = None,
    output: OutputOption = None,
) -> None:
    """Print all recorded scores, also beside a published table; marks say what is not comparable."""
    from m2dx.jobs.results import results_table, table_lines

    if table == "list":
        typer.echo("\n".join(table_lines()))
        return
    check_table_options(form, output)
    shown, warnings = results_table(files or [], key=table, metric=metric, every=every)
    for warning in warnings:
        typer.echo(f"warning: {printable(warning)}", err=True)
    print_table(shown, form, output)


@commands.command()
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT", parser=find_encoder, help="Checkpoint, a run's folder, an export, or starter."
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a model that is there.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, too (package m2dx-onnx).")] = False,
) -> None:
    """Write a checkpoint's encoder as model.safetensors and a self-describing config.json."""
    from m2dx.encoder.weights import export_encoder

    if onnx and find_spec("m2dx_onnx") is None:
        raise PluginError("--onnx needs the package m2dx-onnx; install it, as `make` does: plugins/m2dx-onnx")
    terminal().print(f"encoder: {export_encoder(checkpoint, folder, overwrite=overwrite)}")
    if onnx:
        terminal().print(import_module("m2dx_onnx.export").write_onnx(folder))


@commands.command()
def encode(
    encoder: shared.EncoderPath,
    files: shared.AudioInputs,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for .npy files; or a .csv, .npy, .npz or .parquet file."),
    ] = Path("features"),
    frames: Annotated[
        bool, typer.Option("--frames", help="Features per time frame instead of per clip.")
    ] = False,
    long_clips: Annotated[
        Literal["split", "interpolate"], typer.Option(help="Long audio: split it, or interpolate positions.")
    ] = "split",
    device: shared.DeviceOption = "auto",
) -> None:
    """Write the features of audio files as a table, or as a folder of .npy files."""
    from m2dx.data.inputs import clips_of_inputs
    from m2dx.encoder.audio import load_encoder
    from m2dx.encoder.files import check_output, encode_clips, write_features

    clips = clips_of_inputs(files)
    check_output(output, clips, files)
    network = load_encoder(encoder, long_clips=long_clips)
    bad: UnreadableFiles = []
    with progress(len(clips), network, device) as line:
        encoded = encode_clips(network, clips, frames=frames, bad=bad, progress=line.update)
        write_features(encoded, output, frames=frames)
    done = counted(len(clips) - len(bad), "clip")
    terminal().print(
        f"{done} encoded to {output}" if len(bad) < len(clips) else f"{done} encoded; nothing is written"
    )
    report_unreadable(bad)
