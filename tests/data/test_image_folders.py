"""The layouts of image folders."""

from pathlib import Path

import pytest
from PIL import Image

from m2dx.contract.errors import AudioError, ImageError
from m2dx.data.datasets import ImageFolder
from m2dx.testing import check_dataset


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)


def listed(dataset: ImageFolder) -> list[tuple[str, tuple[str, ...], str | None]]:
    return [(clip.path.name, clip.labels, clip.split) for clip in dataset.clips()]


def test_a_folder_of_files_has_no_labels(tmp_path: Path) -> None:
    write(tmp_path, "b.png", "a.jpg", ".hidden.png")
    (tmp_path / "notes.txt").touch()
    assert listed(ImageFolder(path=tmp_path)) == [("a.jpg", (), None), ("b.png", (), None)]


def test_folders_are_classes(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "dog/1.png", "dog/more/2.png", "train/1.png")
    dataset = ImageFolder(path=tmp_path)
    assert [labels for _, labels, _ in listed(dataset)] == [("cat",), ("dog",), ("more",), ("train",)]
    assert dataset.clips("train") == []


def test_folders_of_splits_hold_classes(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "test/dog/4.png", "train/5.png")
    dataset = ImageFolder(path=tmp_path)
    assert sorted(listed(dataset)) == [
        ("1.png", ("cat",), "train"),
        ("2.png", ("dog",), "train"),
        ("3.png", ("cat",), "valid"),
        ("4.png", ("dog",), "test"),
        ("5.png", (), "train"),
    ]
    assert [clip.path.name for clip in dataset.clips("valid")] == ["3.png"]
    assert dataset.label_names() == ("cat", "dog")


def test_imagenets_validation_part_may_be_the_test_part(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "val/cat/2.png")
    dataset = ImageFolder(path=tmp_path, valid_is_test=True)
    assert [split for _, _, split in listed(dataset)] == ["train", "test"]


def test_extensions_choose_files(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.jpg")
    assert [name for name, _, _ in listed(ImageFolder(path=tmp_path, extensions=["png"]))] == ["1.png"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(ImageError, match=r"no images \(.*png.*\) in"):
        ImageFolder(path=tmp_path).clips()
    with pytest.raises(AudioError, match="must be a folder"):
        ImageFolder(path=tmp_path / "absent").clips()


def test_it_keeps_the_contract_of_data_sets(photos: Path) -> None:
    check_dataset(ImageFolder, path=photos)
