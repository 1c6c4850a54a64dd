"""Pictures: m2dx draw reconstruction, attention, embedding, curves; arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from m2dx.cli.shared import AudioFiles, EncoderPath, load_with_plugins, terminal
from m2dx.contract.errors import M2dxError
from m2dx.contract.package import find_encoder

draw = typer.Typer(no_args_is_help=True, add_completion=False, help="Draw what a model does, as PNG or SVG.")


def _check_suffix(path: Path) -> Path:
    if path.suffix not in (".png", ".svg"):
        raise M2dxError(
            f"a picture's name must end in .png or .svg, but is {path.name!r}; give it another name (--output)"
        )
    return path


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _ratios(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--ratio must be numbers such as 0.5,0.9, but is {text!r}") from None


def _point(text: str) -> tuple[int, int]:
    try:
        f, t = (int(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--point must be two numbers such as 2,7, but is {text!r}") from None
    return f, t


def _tell(*written: Path) -> None:
    for path in written:
        terminal().print(f"written: {path}")


Start = Annotated[float, typer.Option(min=0, help="Where in the files to start, s.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random choices.")]
PICTURE = typer.Option("--output", "-o", help="Picture to write, .png or .svg.", callback=_check_suffix)


@draw.command()
def reconstruction(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", parser=find_encoder, help="MSM-MAE run, or a checkpoint of it.")
    ],
    files: AudioFiles,
    output: Annotated[Path, PICTURE] = Path("reconstruction.png"),
    ratio: Annotated[
        str | None, typer.Option(help="Mask ratios, such as 0.5,0.75,0.99; default the model's own.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="random, vertical, horizontal, chessboard; default random.")
    ] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Number of random masks per ratio.")] = 1,
    seed: Seed = 0,
    start: Start = 0.0,
    outline: Annotated[bool, typer.Option(help="Outline visible patches.")] = True,
    audio: Annotated[
        bool, typer.Option("--audio", help="Write the reconstructions as WAV files, too.")
    ] = False,
) -> None:
    """Draw sounds, their reconstruction from the visible patches, and its error."""
    ratios, patterns = None if ratio is None else _ratios(ratio), _names(pattern)
    from m2dx.report.saving import save_figure
    from m2dx_draw.drawing import masks_of, write_sounds
    from m2dx_draw.reconstruction import draw_reconstructions, load_reconstructor, reconstructions
    from m2dx_draw.sounds import read_sound

    model = load_reconstructor(run)
    masks = masks_of(ratios, patterns, attempts=attempts, seed=seed, own_ratio=model.mask_ratio)
    sounds = [read_sound(file, model.sample_rate, start=start) for file in files]
    blocks = reconstructions(model, sounds, masks)
    _tell(save_figure(draw_reconstructions(blocks, outline=outline), output))
    if audio:
        _tell(*write_sounds(model, blocks, output))


@draw.command()
def attention(
    encoder: EncoderPath,
    files: AudioFiles,
    output: Annotated[Path, PICTURE] = Path("attention.png"),
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="F,T",
            help="Patch that attends: row from the lowest frequencies, column in time, from 0 (repeatable); default "
            "the loudest patch of each half.",
        ),
    ] = None,
    start: Start = 0.0,
) -> None:
    """Draw what single patches attend to in the encoder's last layer."""
    points = None if point is None else [_point(text) for text in point]
    from m2dx.encoder.audio import load_encoder
    from m2dx.report.saving import save_figure
    from m2dx_draw.attention import attention_figure
    from m2dx_draw.sounds import read_sound

    model = load_encoder(encoder)
    sounds = [read_sound(file, model.sample_rate, start=start) for file in files]
    _tell(save_figure(attention_figure(model, sounds, points), output))


@draw.command()
def embedding(
    encoder: EncoderPath,
    labelled: Annotated[Path, typer.Argument(metavar="RECIPE|CSV", help="Source of the labelled clips.")],
    output: Annotated[Path, PICTURE] = Path("embedding.png"),
    task: Annotated[
        str | None, typer.Option(help="Task of the recipe's evaluation; default its only task.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only clips of this split or fold.")] = None,
    method: Annotated[Literal["tsne", "pca"], typer.Option(help="How features become points.")] = "tsne",
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Draw the same network before training, too.")
    ] = False,
    most: Annotated[int, typer.Option(min=3, help="Most clips to draw.")] = 2000,
    seed: Seed = 0,
) -> None:
    """Draw labelled clips as points, placed by their features and coloured by class."""
    recipe = load_with_plugins(labelled, None) if labelled.suffix in (".yaml", ".yml") else None
    from m2dx.report.saving import save_figure
    from m2dx_draw.drawing import draw_embedding, labelled_set

    clips = labelled_set(labelled, recipe, task=task, split=split, most=most, seed=seed)
    figure = draw_embedding(encoder, clips, method=method, random_weights=random_weights, seed=seed)
    _tell(save_figure(figure, output))


@draw.command()
def curves(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Folders of runs.")],
    output: Annotated[Path, PICTURE] = Path("curves.png"),
    metric: Annotated[
        str | None, typer.Option(help="Such as loss,lr,rankme, or scores; default the important ones.")
    ] = None,
) -> None:
    """Draw losses, learning rate, EMA decay, RankMe and scores of one or several runs over time."""
    from m2dx.report.saving import save_figure
    from m2dx_draw.curves import read_curves, runs_figure

    _tell(save_figure(runs_figure([read_curves(run) for run in runs], _names(metric)), output))
