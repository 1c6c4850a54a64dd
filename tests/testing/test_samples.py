"""The sounds that tests and trials are made of."""

from pathlib import Path

import numpy as np
import soundfile

from m2dx.testing.samples import SoundFiles


def test_files_hold_their_sound_also_after_one_was_written_again(tmp_path: Path) -> None:
    files = SoundFiles(tmp_path)
    for name, level in (
        ("a.wav", 0.1),
        ("b.wav", 0.1),
        ("a.wav", 0.2),
        ("c.wav", 0.1),
        ("d.wav", 0.1),
        ("e.wav", 0.2),
    ):
        files.add(name, level, lambda level=level: np.full(100, level))
    held = {path.name: float(soundfile.read(path)[0].max()) for path in tmp_path.iterdir()}
    assert {name: round(level, 2) for name, level in held.items()} == {
        **dict.fromkeys(("b.wav", "c.wav", "d.wav"), 0.1),
        **dict.fromkeys(("a.wav", "e.wav"), 0.2),
    }
    assert (tmp_path / "c.wav").samefile(tmp_path / "d.wav")
