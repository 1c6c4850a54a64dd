"""Pictures of a sound from Python: its reconstruction by an MSM-MAE run, and what the encoder attends to.

python examples/pictures.py RUN SOUND FOLDER
"""

import sys
from pathlib import Path

from m2dx_draw.attention import attention_figure
from m2dx_draw.masks import PatchMask
from m2dx_draw.reconstruction import load_reconstructor, reconstruction_figure
from m2dx_draw.sounds import read_sound

import m2dx


def draw(run: Path, file: Path, folder: Path) -> None:
    """Writes reconstruction.png and attention.png into a folder."""
    model = load_reconstructor(run)
    sound = read_sound(file, model.sample_rate)
    figure = reconstruction_figure(model, [sound], [PatchMask("random", ratio=0.75), PatchMask("chessboard")])
    figure.savefig(folder / "reconstruction.png")

    item = model.reconstruct(sound, PatchMask("random", ratio=0.75))  # without drawing it
    print(f"MSE {item.mse:.3f}, of the masked patches {item.masked_mse:.3f}")

    encoder = m2dx.load_encoder(run)
    sound = read_sound(file, encoder.sample_rate)
    attention_figure(encoder, [sound], points=[(2, 1)]).savefig(folder / "attention.png")


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:4]))
