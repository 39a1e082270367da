"""Thumbnails of every kind of picture that the gallery may hold."""

from __future__ import annotations

import io

import numpy as np
import pytest
from helpers import photograph
from PIL import Image

from seesr.errors import InputError
from seesr.studio.thumbnails import SIDE, make_thumbnail


def encoded(image: Image.Image, suffix: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


def thumbnail(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(make_thumbnail(content)))
    assert image.format == "WEBP"
    assert max(image.size) <= SIDE
    return image


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photograph("chelsea.png", (0, 0, 450, 300)).convert("RGB").resize((900, 600))


def distance(first: Image.Image, second: Image.Image) -> float:
    """Mean difference of the samples, 0 to 255."""
    pixels = [np.asarray(image.convert("RGB").resize((90, 60)), float) for image in (first, second)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "CMYK", "1", "I;16"])
def test_every_mode_looks_as_it_is(photo: Image.Image, mode: str) -> None:
    grey = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    image = Image.fromarray(grey) if mode == "I;16" else photo.convert(mode)
    small = thumbnail(encoded(image, {"CMYK": "JPEG"}.get(mode, "PNG")))
    assert small.size == (384, 256)
    shown = photo if mode in ("RGB", "RGBA", "P", "CMYK") else photo.convert("L")
    assert distance(small, shown) < {"1": 15, "P": 6}.get(mode, 4)


def test_it_is_upright_and_says_nothing_of_how_it_was_made(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret"
    small = thumbnail(encoded(photo, "JPEG", exif=exif))
    assert small.size == (256, 384)
    assert not {"exif", "xmp"} & small.info.keys()


def test_a_transparent_picture_stays_transparent(photo: Image.Image) -> None:
    photo = photo.copy()
    photo.putalpha(0)
    assert thumbnail(encoded(photo, "PNG")).convert("RGBA").getextrema()[3] == (0, 0)


def test_a_small_picture_stays_as_large_as_it_is() -> None:
    assert thumbnail(encoded(Image.new("RGB", (7, 1), "red"), "PNG")).size == (7, 1)


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000)])
def test_a_strip_keeps_a_pixel(size: tuple[int, int]) -> None:
    assert min(thumbnail(encoded(Image.new("RGB", size), "PNG")).size) == 1


def test_a_damaged_file_is_an_error(photo: Image.Image) -> None:
    content = encoded(photo, "PNG")
    with pytest.raises(InputError, match="damaged"):
        make_thumbnail(content[: len(content) // 2])
