"""Metadata of pictures: turned, carried over, and damaged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import MODES, encoded, photo_in_mode
from PIL import ExifTags, Image, ImageOps

from seesr import Upscaler
from seesr.images.finish import finish
from seesr.images.read import read_picture
from seesr.images.save import save
from seesr.images.sizes import Sizes
from seesr.options import Limits

LIMITS = Limits()
KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_says_how_a_picture_is_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(Image.fromarray(np.array([[0, 50, 100], [150, 200, 250]], np.uint8)), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert np.asarray(read_picture(content, LIMITS).rgb)[..., 0].tolist() == expected.tolist()


def test_exif_is_carried_over_upright_and_without_what_is_wrong_now(upscaler: Upscaler, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Model] = "Brownie"
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "1936:05:01 12:00:00",
        ExifTags.Base.ExifImageWidth: 40,
        ExifTags.Base.MakerNote: b"offsets",
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    result = upscaler.upscale(encoded(photo_in_mode(40, 30), "JPEG", exif=exif), scale=1, steps=1, seed=0)
    assert result.image.size == (30, 40)
    for suffix in (".jpg", ".png", ".webp", ".tiff", ".avif"):
        result.save(tmp_path / f"out{suffix}")
        written = Image.open(tmp_path / f"out{suffix}").getexif()
        details = written.get_ifd(ExifTags.IFD.Exif)
        assert written.get(ExifTags.Base.Orientation, 1) == 1, suffix
        assert written[ExifTags.Base.Model] == "Brownie"
        assert details[ExifTags.Base.DateTimeOriginal] == "1936:05:01 12:00:00"
        assert written.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert not details.keys() & {ExifTags.Base.ExifImageWidth, ExifTags.Base.MakerNote}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_names_in_any_letters_come_back_as_they_were(kind: str, tmp_path: Path) -> None:
    """EXIF's text is bytes, mostly UTF-8, in old files latin-1."""
    artist, lens, place = "© Jörg, Анна".encode(), b"Objektiv f\xfcr alles", "東京".encode()
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = artist
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSMapDatum: place, ExifTags.GPS.GPSLatitudeRef: "N"}
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.LensModel: Latin(lens.decode("latin-1"))}
    picture = read_picture(encoded(photo_in_mode(40, 30), kind, exif=exif.tobytes()), LIMITS)
    assert list(picture.notes) == []
    result = finish(picture.rgb, picture, Sizes((40, 30), (40, 30), (40, 30), (40, 30), 0), 0)
    for suffix in (".jpg", ".png", ".webp", ".tiff", ".avif"):
        for said in (None, {"seed": 1}):
            save(result, tmp_path / f"out{suffix}", settings=said, metadata=picture.metadata)
            written = Image.open(tmp_path / f"out{suffix}").getexif()
            details, gps = written.get_ifd(ExifTags.IFD.Exif), written.get_ifd(ExifTags.IFD.GPSInfo)
            assert written[ExifTags.Base.Artist].encode("latin-1") == artist, suffix
            assert details[ExifTags.Base.LensModel].encode("latin-1") == lens, suffix
            assert gps[ExifTags.GPS.GPSMapDatum].encode("latin-1") == place, suffix
            assert gps[ExifTags.GPS.GPSLatitudeRef] == "N"
            read_again = Image.Exif()
            read_again.load(read_picture(tmp_path / f"out{suffix}", LIMITS).metadata.exif)
            assert read_again[ExifTags.Base.Artist].encode("latin-1") == artist, suffix


class Latin(str):
    """Written by Pillow as what it is."""

    def encode(self, *_: object) -> bytes:
        return super().encode("latin-1")


def test_a_tiff_says_as_much_as_any_other() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Model] = "Brownie"
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    picture = read_picture(encoded(photo_in_mode(40, 30), "TIFF", exif=exif.tobytes()), LIMITS)
    kept = Image.Exif()
    kept.load(picture.metadata.exif)
    assert picture.rgb.size == (30, 40)
    assert kept[ExifTags.Base.Model] == "Brownie"
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff nonsense", b"Exif\0\0nonsense", b"Exif\0\0II"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_does_not_matter(kind: str, exif: bytes) -> None:
    dpi = {"dpi": (72, 72)} if kind == "JPEG" else {}  # without, Pillow itself looks into EXIF for it
    picture = read_picture(encoded(photo_in_mode(40, 30), kind, exif=exif, **dpi), LIMITS)
    assert picture.metadata.exif is None
    assert any("EXIF is damaged" in note for note in picture.notes)
    assert picture.rgb.size == (40, 30)
