"""Colours outside sRGB, and colours that a file states otherwise than by an ICC profile."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from helpers import encoded, photo_in_mode
from PIL import Image, ImageCms

from seesr import Upscaler
from seesr.images.colour_tags import CODE_PRIMARIES, HLG, PQ
from seesr.images.icc import ADOBE_GAMMA, ADOBE_RGB, BT2020, DISPLAY_P3, SRGB, Primaries, build_profile, convert, is_wide
from seesr.images.picture import Picture
from seesr.images.read import read_picture
from seesr.options import Limits

LIMITS = Limits()
PRO_PHOTO = Primaries((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585))
SPACES = {
    "Display P3": (DISPLAY_P3, None),
    "Adobe RGB": (ADOBE_RGB, ADOBE_GAMMA),
    "ProPhoto RGB": (PRO_PHOTO, 1.8),
    "linear BT.2020": (BT2020, 1.0),
}


def flat(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (32, 32), colour)


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


def with_code_points(content: bytes, primaries: int, transfer: int) -> bytes:
    place = content.index(b"colrnclx") + 8
    return content[:place] + struct.pack(">2H", primaries, transfer) + content[place + 4 :]


@pytest.mark.parametrize("name", SPACES)
def test_a_figure_outside_srgb_survives(upscaler: Upscaler, name: str) -> None:
    pixels = np.empty((64, 96, 3), np.uint8)
    pixels[:], pixels[16:48, 32:64] = (0, 255, 0), (110, 250, 70)
    profile = build_profile(*SPACES[name], name)
    content = encoded(Image.fromarray(pixels), "PNG", icc_profile=profile)
    result = upscaler.upscale(content, scale=2, steps=1, seed=1, tags=False).image
    assert result.info["icc_profile"] == profile
    made = np.asarray(result, dtype=float)
    ground, figure = made[20:30, 20:50].mean((0, 1)), made[50:80, 80:112].mean((0, 1))
    assert np.abs(ground - (0, 255, 0)).max() < 6
    assert np.abs(figure - (110, 250, 70)).max() < 6


def test_wide_spaces_are_known_as_such() -> None:
    for name, (primaries, gamma) in SPACES.items():
        assert is_wide(ImageCms.ImageCmsProfile(io.BytesIO(build_profile(primaries, gamma, name))))
    ours = build_profile(SRGB, None, "sRGB")
    assert not is_wide(ImageCms.ImageCmsProfile(io.BytesIO(ours)))
    photo = photo_in_mode(40, 30)
    assert np.abs(np.asarray(convert(photo, ours, None), int) - np.asarray(photo, int)).max() <= 1


def test_a_camera_s_mark_of_adobe_rgb_is_heeded(upscaler: Upscaler) -> None:
    exif = Image.Exif()
    within = exif.get_ifd(0x8769)
    within[0xA001], within[0xA005] = 65535, {1: "R03"}
    exif[0x8769] = within
    content = encoded(flat((189, 35, 45)), "JPEG", exif=exif, quality=100, subsampling=0)  # sRGB's (220, 30, 40)
    assert np.abs(np.array(read_picture(content, LIMITS).srgb.getpixel((9, 9))) - (220, 30, 40)).max() <= 2
    result = upscaler.upscale(content, scale=1, steps=1, seed=1, tags=False).image
    assert np.abs(np.asarray(result, float).mean((0, 1)) - (189, 35, 45)).max() < 2
    assert np.abs(np.array(convert(result, result.info["icc_profile"], None).getpixel((9, 9))) - (220, 30, 40)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "AVIF", "HEIF"])
def test_code_points_say_display_p3(kind: str) -> None:
    content = encoded(flat((200, 60, 60)), kind, **({} if kind == "PNG" else {"quality": 100}))
    is_png = kind == "PNG"
    content = with_chunk(content, b"cICP", bytes([12, 13, 0, 1])) if is_png else with_code_points(content, 12, 13)
    picture = read_picture(content, LIMITS)
    expected = convert(flat((200, 60, 60)), build_profile(DISPLAY_P3, None, ""), None).getpixel((9, 9))
    assert np.abs(np.array(picture.srgb.getpixel((9, 9))) - expected).max() <= 3
    assert np.abs(np.array(picture.rgb.getpixel((9, 9))) - (200, 60, 60)).max() <= 3
    assert picture.profile is not None


@pytest.mark.parametrize(("transfer", "white"), [(PQ, 148), (HLG, 191)])
def test_high_dynamic_range_is_tone_mapped(transfer: int, white: int) -> None:
    """`white` is the byte of 203 cd/m2: 58 % of PQ's range, 75 % of HLG's."""
    grey = Image.new("RGB", (64, 8))
    for x in range(64):
        grey.paste((x * 4, x * 4, x * 4), (x, 0, x + 1, 8))
    grey.paste((white, white, white), (0, 0, 8, 8))
    picture = read_picture(with_chunk(encoded(grey, "PNG"), b"cICP", bytes([9, transfer, 0, 1])), LIMITS)
    assert [note for note in picture.notes if "tone-mapped by ITU-R BT.2390" in note]
    row = np.asarray(picture.srgb, int)[4, 8:, 1]
    assert (np.diff(row) >= 0).all(), "brighter stays brighter"
    assert row[-1] > 230
    middle = np.asarray(picture.srgb, int)[4, 4]
    assert 150 < middle.mean() < 245
    assert np.ptp(middle) <= 3, "grey stays grey"


def test_gamma_and_corners_of_a_png() -> None:
    def read(image: Image.Image, *chunks: tuple[bytes, bytes]) -> Picture:
        content = encoded(image, "PNG")
        for kind, data in reversed(chunks):
            content = with_chunk(content, kind, data)
        return read_picture(content, LIMITS)

    def corners(primaries: Primaries) -> bytes:
        values = (*primaries.white, *primaries.red, *primaries.green, *primaries.blue)
        return struct.pack(">8I", *(round(value * 100_000) for value in values))

    grey = flat((128, 128, 128))
    usual = (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", corners(SRGB))
    assert read(grey, *usual).rgb.getpixel((0, 0)) == (128, 128, 128)
    assert read(grey, *usual).profile is None
    linear = read(grey, (b"gAMA", struct.pack(">I", 100_000)))
    assert abs(linear.srgb.getpixel((0, 0))[0] - 188) <= 1
    assert linear.profile is not None
    assert read(grey, (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))).profile is None
    red = read(flat((200, 60, 60)), (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", corners(DISPLAY_P3)))
    assert red.srgb.getpixel((0, 0))[0] > 205
    assert read(grey, (b"cHRM", bytes(32))).profile is None, "nonsense is ignored"


def test_a_gain_map_and_more_than_8_bits_are_said() -> None:
    exif = b"Exif\0\0" + Image.Exif().tobytes()
    content = encoded(flat((9, 9, 9)), "JPEG", exif=exif, xmp=b'<x hdrgm:Version="1.0"/>')
    assert "the input's gain map, which screens of high dynamic range use, is not kept" in list(
        read_picture(content, LIMITS).notes
    )
    ten = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (32, 32), bytes(32 * 32 * 6)).save(ten)
    assert read_picture(ten.getvalue(), LIMITS).bits == 10


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "I;16"])
@pytest.mark.parametrize("steps", [1, 4])
def test_grey_stays_grey(upscaler: Upscaler, mode: str, steps: int) -> None:
    grey = photo_in_mode(40, 30, "L")
    image = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    content = encoded(image, "PNG")
    result = upscaler.upscale(content, scale=2, steps=steps, seed=1, tags=False).image
    assert result.mode == ("RGB" if mode in ("RGB", "P") else "L")
    made = np.asarray(result.convert("RGB"), int)
    assert np.ptp(made, axis=2).max() == 0
    assert made.std() > 20


def test_a_grey_picture_with_a_profile_for_colour(upscaler: Upscaler) -> None:
    grey = photo_in_mode(40, 30, "L")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = build_profile(*SPACES["ProPhoto RGB"], "ProPhoto")
    for profile, mode in ((srgb, "L"), (wide, "RGB")):
        picture = read_picture(encoded(grey, "PNG", icc_profile=profile), LIMITS)
        assert np.abs(np.asarray(picture.rgb, int)[..., 0] - np.asarray(grey, int)).mean() < 1.5
        result = upscaler.upscale(encoded(grey, "PNG", icc_profile=profile), scale=1, steps=1, seed=1, tags=False).image
        assert result.mode == mode
        assert result.info.get("icc_profile") == (None if mode == "L" else profile)
        assert np.ptp(np.asarray(result.convert("RGB"), int), axis=2).max() <= 1


def test_known_primaries_are_those_of_their_standard() -> None:
    assert CODE_PRIMARIES[9] is BT2020
    assert CODE_PRIMARIES[12] is DISPLAY_P3
