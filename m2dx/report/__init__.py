"""The page of a run, and pictures of what a model does: reconstructions, attention maps, curves.

    model = load_reconstructor("runs/sounds")                      # an MSM-MAE run, or a checkpoint of it
    sound = read_sound("bird.wav", model.sample_rate)              # Sound(name, wav): wav (N,) at the model's rate
    figure = reconstruction_figure(model, [sound], [PatchMask("random", ratio=0.75)])
    save_figure(figure, Path("bird.png"))                          # .png or .svg

    encoder = m2dx.load_encoder("runs/sounds")
    figure = attention_figure(encoder, [read_sound("bird.wav", encoder.sample_rate)], points=[(2, 7)])

`Reconstructor.reconstruct(sound, mask, title=...)` gives a `Reconstruction` (arrays and errors) without drawing it, and
`draw_reconstructions(rows)` draws any number of them, one row of reconstructions for each sound: the same sound at
several checkpoints, for instance. `Reconstructor(model, logmel, mean, std)` takes an `MSMMAE` that is in training.
`attention_map(encoder, sound, point)` and `draw_attention(rows)` are the same for attention.
"""

from m2dx.report.attention import (
    AttentionMap,
    attention_figure,
    attention_map,
    attention_weights,
    draw_attention,
)
from m2dx.report.masks import PatchMask
from m2dx.report.reconstruction import (
    Reconstruction,
    Reconstructor,
    draw_reconstructions,
    load_reconstructor,
    reconstruction_figure,
)
from m2dx.report.saving import save_figure
from m2dx.report.sounds import Sound, read_sound

__all__ = [
    "AttentionMap",
    "PatchMask",
    "Reconstruction",
    "Reconstructor",
    "Sound",
    "attention_figure",
    "attention_map",
    "attention_weights",
    "draw_attention",
    "draw_reconstructions",
    "load_reconstructor",
    "read_sound",
    "reconstruction_figure",
    "save_figure",
]
