"""AudioSet's labels as a training signal."""

import pytest
import torch
from m2dx_audioset import AudioSetLabels

import m2dx
from m2dx.testing import check_offline_encoder

CLASSES = tuple(f"class {number}" for number in range(527))


def data_info(**sizes: int) -> m2dx.DataInfo:
    """Data sets with so many classes each."""
    return m2dx.DataInfo(16_000, 15_360, {name: CLASSES[:size] for name, size in sizes.items()})


def test_it_keeps_the_contract() -> None:
    check_offline_encoder(AudioSetLabels, data_info(audioset=527))
    check_offline_encoder(AudioSetLabels, data_info(other=3, audioset=527))
    check_offline_encoder(AudioSetLabels, data_info(a=527, b=527), dataset="b")


def test_it_gives_the_labels_of_its_data_set_as_they_are() -> None:
    rows = torch.zeros(3, 527)
    rows[0, [0, 451]] = 1.0
    rows[1, 526] = 1.0
    rows[2] = torch.nan  # not labelled
    labels = {"audioset": rows, "other": torch.ones(3, 3)}
    views = m2dx.Views(m2dx.Waveforms(torch.zeros(3, 15_360), 16_000), torch.zeros(3, 1, 80, 96), labels)
    target = AudioSetLabels(data_info(other=3, audioset=527))(views)
    torch.testing.assert_close(target, rows, equal_nan=True)
    assert target[0].nonzero().flatten().tolist() == [0, 451]


@pytest.mark.parametrize(
    ("sizes", "dataset", "text"),
    [
        ({}, None, "but 0 have them: none has labels"),
        ({"fsd": 200}, None, r"but 0 have them: fsd \(200 classes\)"),
        ({"a": 527, "b": 527}, None, r"but 2 have them: a \(527 classes\), b \(527 classes\)"),
        ({"a": 527, "fsd": 200}, "fsd", r"must be a data set with the 527 classes of AudioSet, but is 'fsd'"),
        ({"a": 527}, "audioset", r"but is 'audioset'; with labels there are: a \(527 classes\)"),
    ],
)
def test_other_classes_are_refused(sizes: dict[str, int], dataset: str | None, text: str) -> None:
    with pytest.raises(m2dx.RecipeError, match=text):
        AudioSetLabels(data_info(**sizes), dataset=dataset)
