"""Writes something to try the teacher on: an encoder with random weights, a folder of audio, a recipe.

`python -m m2dx_teacher.sample FOLDER [--clips N]`
"""

from pathlib import Path

from m2dx.testing.samples import SoundFiles, sample_parser, write_encoder

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
    files = SoundFiles(folder / "audio")
    for number in range(clips):
        sound = number % FILES
        hertz, beat = 200 * 2 ** (sound / 2), 1.0 + sound
        files.add_tone(f"{number:05d}.wav", hertz, seconds=3.0, beat=beat, seed=sound)
    write_encoder(folder / "teacher")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


if __name__ == "__main__":
    written = write_sample(**vars(sample_parser(write_sample, clips=FILES).parse_args()))
    print(f"m2dx train {written / 'recipe.yaml'}")
