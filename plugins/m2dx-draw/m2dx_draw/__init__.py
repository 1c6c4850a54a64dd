"""`m2dx draw`: pictures of what a model does, as PNG or SVG; and functions for the same from Python.

    model = load_reconstructor("runs/sounds")                      # an MSM-MAE run, or a checkpoint of it
    sound = read_sound("bird.wav", model.sample_rate)              # Sound(name, wav): wav (N,) at the model's rate
    figure = reconstruction_figure(model, [sound], [PatchMask("random", ratio=0.75)])
    save_figure(figure, Path("bird.png"))                          # .png or .svg

    encoder = m2dx.load_encoder("runs/sounds")
    figure = attention_figure(encoder, [read_sound("bird.wav", encoder.sample_rate)], points=[(2, 7)])

They are in `m2dx_draw.reconstruction`, `attention`, `masks` and `sounds`, `save_figure` in `m2dx.report.saving`.
`Reconstructor.reconstruct(sound, mask)` gives a `Reconstruction` (arrays and errors) without drawing it, and
`draw_reconstructions(rows)` draws any number of them, one row of reconstructions for each sound: the same sound at
several checkpoints, for instance. `Reconstructor(model, logmel, mean, std)` takes an `MSMMAE` that is in training.
`attention_maps(encoder, sound, points)` gives the weights without drawing them.
"""
