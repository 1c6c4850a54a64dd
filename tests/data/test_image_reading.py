"""Image files good and bad, and the crops that are cut from them."""

import errno
import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m2dx.contract.errors import ImageError
from m2dx.data.images import middle_box, random_box, random_crop, read_image, resized
from m2dx.recipe.schema import ImageSection


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, 0 * red], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "gif", "tiff", "webp", "ppm"])
def test_images_are_read_in_colour_and_grey(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{extension}"
    Image.new("RGB", (8, 6), (200, 100, 50)).save(path)
    colour = torch.from_numpy(np.array(read_image(path, channels=3)))
    assert colour.shape == (6, 8, 3)
    assert (colour.int() - torch.tensor([200, 100, 50])).abs().max() <= 4  # lossy formats
    grey = np.array(read_image(path, channels=1))
    assert grey.shape == (6, 8) and abs(int(grey[0, 0]) - 124) <= 3  # 0.299 R + 0.587 G + 0.114 B


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
def test_other_modes_of_eight_bits_are_converted(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tiff"
    Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(path)
    assert np.array(read_image(path, channels=3)).min() >= 250


def broken(kind: str, path: Path) -> Path:
    whole = path.parent / "whole.jpg"
    gradient(64, 64).save(whole)
    if kind == "truncated":
        path.write_bytes(whole.read_bytes()[:-200])
    elif kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "16 bit":
        Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(path, format="PNG")
    elif kind == "broken png":
        gradient(64, 64).save(path, format="PNG")
        path.write_bytes(path.read_bytes()[:40] + b"\0" * 40 + path.read_bytes()[80:])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "cannot be read as an image: image file is truncated"),
        ("text", "cannot be read as an image: cannot identify"),
        ("empty", "cannot be read as an image: cannot identify"),
        ("folder", "cannot be read as an image: "),
        ("missing", "missing: no such file"),
        ("16 bit", r"must have 8 bits per channel, but is of mode I;16"),
        ("broken png", "cannot be read as an image: "),
    ],
)
def test_a_file_that_is_no_image_is_refused_with_the_reason(kind: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=reason):
        read_image(broken(kind, tmp_path / "image.jpg"), channels=3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="Not a regular file"):
        read_image(tmp_path / "pipe.png", channels=3)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (struct.error("unpack requires a buffer of 4 bytes"), ImageError),
        (ZeroDivisionError("division by zero"), ImageError),
        (OSError(errno.EIO, "Input/output error"), ImageError),
        (OSError(errno.EMFILE, "Too many open files"), OSError),
    ],
)
def test_whatever_the_decoder_raises_is_of_the_file_unless_the_process_has_too_many_open(
    raised: Exception, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient(8, 8).save(tmp_path / "image.png")

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(expected, match=str(raised.args[-1])):
        read_image(tmp_path / "image.png", channels=3)


def test_reading_in_threads_leaves_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    gradient(64, 64).save(tmp_path / "image.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_image(tmp_path / "image.png", channels=3), range(300)))
    assert warnings.filters == before


def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient(64, 64).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="too large"):
        read_image(tmp_path / "large.png", channels=3)


def test_the_middle_has_the_proportions_of_the_input() -> None:
    assert middle_box((100, 50), (224, 224)) == (25, 0, 75, 50)
    assert middle_box((50, 100), (224, 224)) == (0, 25, 50, 75)
    assert middle_box((100, 50), (10, 40)) == (0, 12, 100, 37)
    assert middle_box((1, 100), (224, 224)) == (0, 49, 1, 50)
    crop = resized(gradient(101, 51), (17, 17), middle_box((101, 51), (17, 17)))
    assert crop.shape == (3, 17, 17) and crop.dtype == torch.uint8
    assert abs(int(crop[0, 8, 8]) - 128) <= 2 and abs(int(crop[1, 8, 8]) - 128) <= 2
    assert int(crop[0, 8, 0]) == pytest.approx(255 * 26.5 / 100, abs=2)  # the first of 17 pixels of 3


@pytest.mark.parametrize("size", [(640, 427), (50, 300), (7, 5)])
def test_random_boxes_are_in_the_image_with_area_and_ratio_as_asked(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        left, upper, right, lower = random_box(size, (0.2, 0.6), generator)
        assert 0 <= left < right <= size[0] and 0 <= upper < lower <= size[1]
        if size[0] > 100:  # below, pixels are too coarse for these
            share = (right - left) * (lower - upper) / (size[0] * size[1])
            assert 0.198 <= share <= 0.602
            assert 0.74 <= (right - left) / (lower - upper) <= 1.345


def test_random_boxes_are_everywhere() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([random_box((200, 100), (0.2, 1.0), generator) for _ in range(2000)]).double()
    middle = (boxes[:, :2] + boxes[:, 2:]).mean(0) / 2
    assert (middle - torch.tensor([100.0, 50.0])).abs().max() < 3
    assert boxes[:, 0].min() == 0 and boxes[:, 2].max() == 200


def test_where_no_crop_fits_the_middle_is_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    assert random_box((10, 1000), (1.0, 1.0), generator) == (0, 493, 10, 506)  # 3 : 4


def test_half_of_the_crops_are_flipped() -> None:
    def crops(flip: bool) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        image = gradient(64, 64)
        return [
            random_crop(image, ImageSection(size=(8, 8), crop_scale=(0.5, 1.0), flip=flip), generator)
            for _ in range(200)
        ]

    falls = [bool(crop[0, 0, 0] > crop[0, 0, -1]) for crop in crops(True)]
    assert 80 < sum(falls) < 120
    assert not any(crop[0, 0, 0] > crop[0, 0, -1] for crop in crops(False))


def test_a_grey_image_has_one_channel() -> None:
    assert resized(gradient(9, 9).convert("L"), (4, 6), (0, 0, 9, 9)).shape == (1, 4, 6)
