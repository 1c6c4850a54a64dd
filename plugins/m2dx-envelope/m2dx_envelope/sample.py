"""Writes a small folder of audio to try the plugin on.

`python -m m2dx_envelope.sample FOLDER [--clips N]`
"""

from pathlib import Path

import numpy as np
from m2dx.testing.samples import SoundFiles, sample_parser


def write_sample(folder: Path, *, clips: int = 24) -> Path:
    """Writes recordings of 3 s, each a tone that beats at its own pace in noise, and gives the folder."""
    files = SoundFiles(folder)
    for number in range(clips):
        random = np.random.default_rng(number)
        hertz, beat = 100 * 2 ** random.uniform(0, 5), random.uniform(0.5, 5)
        files.add_tone(f"{number:05d}.wav", hertz, seconds=3.0, beat=beat, noise=0.01, seed=number)
    return folder


if __name__ == "__main__":
    print(write_sample(**vars(sample_parser(write_sample, clips=24).parse_args())))
