"""Writes something to try the teacher on: an encoder with random weights, a folder of audio, a recipe.

`python -m m2dx_teacher.sample FOLDER [--clips N]`
"""

import argparse
from functools import partial
from pathlib import Path

from m2dx.testing.samples import SoundFiles, tone, write_encoder

FILES = 6  # that differ; more clips are links to these

RECIPE = """\
# Further pre-training with a teacher, as M2D-X does it in IV-E, but tiny: seconds on a CPU.
data:
  sets:
    sounds: {dataset: {name: folder, path: audio}}
init_from: teacher  # the online encoder starts as the teacher, and the task keeps it near
audio: {crop_seconds: 0.64}
model:
  size: tiny
  depth: 2
  patch_size: [16, 16]
  predictor: {embed_dim: 64, depth: 1, num_heads: 2}
  ema_decay: {start: 0.99, end: 0.999}
tasks:
  teacher:
    offline_encoder: {name: m2d_teacher, weights: teacher}
    online_mapper: {name: linear}
    loss: {name: norm_mse}
    target_frames: tokens
    weight: 0.5
train: {epochs: 10, warmup_epochs: 1, batch_size: 3, base_lr: 0.05, log_every: 1, threads: 1, device: cpu}
"""


def write_sample(folder: Path, *, clips: int = FILES) -> Path:
    """Writes `audio/` (3 s each, 16 bits), `teacher/` (an export with random weights) and `recipe.yaml`."""
    write_audio(folder / "audio", clips)
    write_encoder(folder / "teacher")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


def write_audio(folder: Path, clips: int) -> None:
    """Noisy tones of falling and rising level; files beyond the first few are links to them."""
    files = SoundFiles(folder)
    for number in range(clips):
        sound = number % FILES
        make = partial(tone, 200 * 2 ** (sound / 2), seconds=3.0, beat=1.0 + sound, seed=sound)
        files.add(f"{number:05d}.wav", sound, make)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m m2dx_teacher.sample", description=write_sample.__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--clips", type=int, default=FILES, metavar="N", help="audio files (default %(default)s)"
    )
    arguments = parser.parse_args()
    folder = write_sample(arguments.folder, clips=arguments.clips)
    print(f"m2dx train {folder / 'recipe.yaml'}")


if __name__ == "__main__":
    main()
