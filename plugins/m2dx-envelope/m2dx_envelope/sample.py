"""Writes a small folder of audio to try the plugin on.

`python -m m2dx_envelope.sample FOLDER [--clips N]`
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from m2dx.testing.samples import SoundFiles, tone


def write_sample(folder: Path, *, clips: int = 24) -> Path:
    """Writes recordings of 3 s, each a tone that beats at its own pace in noise, and gives the folder."""
    files = SoundFiles(folder)
    for number in range(clips):
        random = np.random.default_rng(number)
        hertz, beat = 100 * 2 ** random.uniform(0, 5), random.uniform(0.5, 5)
        sound = partial(tone, hertz, seconds=3.0, beat=beat, noise=0.01, seed=number)
        files.add(f"{number:05d}.wav", number, sound)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=write_sample.__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--clips", type=int, default=24, metavar="N", help="recordings (default %(default)s)")
    arguments = parser.parse_args()
    write_sample(arguments.folder, clips=arguments.clips)


if __name__ == "__main__":
    main()
