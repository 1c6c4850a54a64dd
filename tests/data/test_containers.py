"""Files inside others, where no package is installed that reads them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.data import containers
from m2dx.data.containers import audio_state, dataset_of, is_container, is_there, origin_of
from m2dx.data.reading import probe, read_wav


@pytest.fixture(autouse=True)
def no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_containers", lambda: None)


def test_a_file_inside_a_tar_says_which_package_reads_it(tmp_path: Path) -> None:
    (tmp_path / "shard-00000.tar").write_bytes(b"\0" * 10_240)
    inside = tmp_path / "shard-00000.tar" / "00000-000000.wav"
    for read in (read_wav, probe):
        with pytest.raises(AudioError, match="read by the package m2dx-pack, which is not installed"):
            read(inside)
    assert not is_there(inside) and audio_state(inside) == []
    assert not is_container(str(inside.parent)) and dataset_of(tmp_path) is None


def test_a_folder_that_is_named_like_a_tar_is_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "old.tar" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, np.zeros(1600, dtype=np.float32), 16_000)
    assert is_there(path) and len(audio_state(path)) == 3 and origin_of(Clip(path)) is None
    assert probe(path).frames == len(read_wav(path)) == 1600
