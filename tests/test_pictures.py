"""Every kind of picture file, whole and broken: decoded right or refused in a sentence, and written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGES, turned_profile
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps, features
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import TiffImageFile

from seesr import InputError, OptionError, OutputError, SeeSRError, Upscaler
from seesr.images.alpha import bleed
from seesr.images.finish import finish
from seesr.images.metadata import read_settings
from seesr.images.read import read_picture
from seesr.images.save import save
from seesr.images.sizes import Sizes
from seesr.options import Limits, SaveOptions

LIMITS = Limits()
SMALL = Limits(input_pixels=100_000, output_side=600)
MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"],
    "BMP": ["1", "L", "P", "RGB"],
    "GIF": ["P", "L"],
    "AVIF": ["RGB", "RGBA"],
    "HEIF": ["RGB"],
}


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A part of a real photograph, in any of Pillow's modes."""
    image = Image.open(IMAGES / "chelsea.png").convert("RGB").resize((width, height), box=(100, 60, 300, 260))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)
    if mode == "LAB":
        return ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **arguments: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def close(first: Image.Image, second: Image.Image, levels: float) -> bool:
    """Mean absolute difference of the two, in grey levels, at most `levels`."""
    pair = [np.asarray(image.convert("RGB"), dtype=float) for image in (first, second)]
    return np.abs(pair[0] - pair[1]).mean() <= levels


KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_every_format_and_mode_is_decoded(kind: str, mode: str) -> None:
    image = photograph(40, 30, mode)
    picture = read_picture(encoded(image, kind), LIMITS)
    assert picture.rgb.size == (40, 30)
    assert picture.rgb.mode == "RGB"
    expected = photograph(40, 30, {"1": "1", "P": "P"}.get(mode, "L" if mode in ("L", "LA", "I;16", "F") else "RGB"))
    assert close(picture.rgb, expected, 6)
    bits = {"I;16": ["16 bits a channel, the result has 8"], "F": ["32 bits a channel, the result has 8"]}
    assert [text for text in picture.notes if "bits" in text] == bits.get(mode, [])


def png_of(width: int, bits: int, colour: int, row: bytes, transparent: bytes | None = None) -> bytes:
    """One row, written by hand, perhaps with one transparent colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" + row))]
    if transparent is not None:
        parts.insert(1, (b"tRNS", transparent))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


def test_16_bit_colour_is_said_to_become_8_bit() -> None:
    # Pillow opens such files as 8-bit and says nothing.
    content = png_of(2, 16, 2, np.array([[65535, 0, 32768], [0, 65535, 257]], dtype=">u2").tobytes())
    picture = read_picture(content, LIMITS)
    assert list(picture.notes) == ["16 bits a channel, the result has 8"]
    assert np.asarray(picture.rgb)[0].tolist() == [[255, 0, 128], [0, 255, 1]]


def tiff_of(values: np.ndarray, bits: int, floating: bool = False, white_is_zero: bool = False) -> bytes:
    """One row of greys, written by hand: Pillow does not write these."""
    data = values.tobytes() if bits > 12 else packed_12_bits(values)
    short, long = 3, 4
    entries = [
        *((256, short, len(values)), (257, short, 1), (258, short, bits), (259, short, 1), (262, short, not white_is_zero)),
        *((273, long, 0), (277, short, 1), (278, short, 1), (279, long, len(data)), (339, short, 3 if floating else 1)),
    ]
    offset = 8 + 2 + 12 * len(entries) + 4
    rows = [struct.pack("<HHII", tag, kind, 1, offset if tag == 273 else value) for tag, kind, value in entries]
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + bytes(4) + data


def packed_12_bits(values: np.ndarray) -> bytes:
    bits = "".join(f"{value:012b}" for value in values)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize(
    ("content", "expected", "note"),
    [
        (tiff_of(np.array([0, 1024, 2048, 4095]), 12), [0, 64, 128, 255], "12 bits a channel, the result has 8"),
        (tiff_of(np.array([0, 13107, 65535], "<u2"), 16), [0, 51, 255], "16 bits a channel, the result has 8"),
        (tiff_of(np.array([0, 13107, 65535], "<u2"), 16, white_is_zero=True), [255, 204, 0], "16 bits a channel"),
        (tiff_of(np.array([0, 2**31, 2**32 - 1], "<u4"), 32), [0, 128, 255], "32 bits a channel"),
        (tiff_of(np.array([0, 0.2, np.inf, np.nan, 1], "<f4"), 32, floating=True), [0, 51, 255, 0, 255], "reach 1, 1 was"),
        (tiff_of(np.array([0, 0.2, 1], "<f4"), 32, floating=True, white_is_zero=True), [255, 204, 0], "reach 1, 1 was"),
    ],
    ids=["12", "16", "16 white is 0", "32", "float", "float white is 0"],
)
def test_rare_greys_are_what_they_mean(content: bytes, expected: list[int], note: str) -> None:
    image = Image.open(io.BytesIO(content))
    for source in (content, image, image):  # the last time it is loaded
        picture = read_picture(source, LIMITS)
        assert np.asarray(picture.rgb)[0, :, 0].tolist() == expected
        assert note in "; ".join(picture.notes)


def test_a_picture_that_grows_while_it_is_decoded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pillow_heif says of HEIC that it can."""
    image = Image.new("RGB", (8, 8))
    monkeypatch.setattr(image, "load", lambda: setattr(image, "_size", (4096, 4096)))
    with pytest.raises(InputError, match="4096x4096, 16,777,216 pixels; at most 10,000 are allowed"):
        read_picture(image, Limits(input_pixels=10_000))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png_of(8, 1, 0, b"\x0f", b"\0\1"), [255] * 4 + [0] * 4),
        (png_of(4, 2, 0, b"\xe4", b"\0\3"), [0, 255, 255, 255]),
        (png_of(2, 4, 0, b"\xf3", b"\0\x0f"), [0, 255]),
        (png_of(2, 4, 0, b"\xf3", b"\0\3"), [255, 0]),
        (png_of(2, 8, 0, b"\xf3\x03", b"\0\3"), [255, 0]),
        (png_of(2, 16, 2, bytes(range(12)), bytes(range(6))), [0, 255]),
    ],
    ids=["1 bit", "2 bits", "4 bits", "4 bits, dark", "8 bits", "16 bits of colour"],
)
def test_one_transparent_colour_is_found_whatever_the_bits(content: bytes, expected: list[int]) -> None:
    image = Image.open(io.BytesIO(content))
    for source in (content, image, image):
        assert np.asarray(read_picture(source, LIMITS).alpha)[0].tolist() == expected


def test_an_animation_gives_its_first_frame_and_says_so() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "green")]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    picture = read_picture(content, LIMITS)
    assert list(picture.notes) == ["several frames, the first is used"]
    assert close(picture.rgb, frames[0], 1)


def test_frames_that_are_not_used_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TIFF can hold a million of them, or such as Pillow does not know."""
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "green")]
    content = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    read: list[int] = []
    seek = TiffImageFile._seek

    def watched(self: TiffImageFile, frame: int) -> None:
        read.append(frame)
        seek(self, frame)

    monkeypatch.setattr(TiffImageFile, "_seek", watched)
    picture = read_picture(content, LIMITS)
    assert set(read) <= {0}
    assert list(picture.notes) == ["several frames, the first is used"]
    assert close(picture.rgb, frames[0], 0)


def test_a_bmp_without_a_profile_has_the_colours_in_srgb(tmp_path: Path) -> None:
    orange = Image.new("RGB", (8, 6), (200, 120, 40))
    turned = orange.copy()
    turned.info["icc_profile"] = turned_profile()
    save(turned, tmp_path / "turned.bmp")
    save(orange, tmp_path / "plain.bmp")
    assert close(Image.open(tmp_path / "turned.bmp"), read_picture(turned, LIMITS).rgb, 0)
    assert close(Image.open(tmp_path / "plain.bmp"), orange, 0)


def test_a_phone_s_picture_with_a_preview_is_one_picture() -> None:
    frames = [photograph(40, 30), photograph(8, 6)]
    content = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 2
    picture = read_picture(content, LIMITS)
    assert list(picture.notes) == []
    assert close(picture.rgb, frames[0], 6)


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
    result = upscaler.upscale(encoded(photograph(40, 30), "JPEG", exif=exif), scale=1, steps=1, seed=0)
    assert result.image.size == (30, 40)
    for suffix in (".jpg", ".png", ".webp", ".tiff", ".avif"):
        save(result.image, tmp_path / f"out{suffix}", settings=result.settings())
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
    picture = read_picture(encoded(photograph(40, 30), kind, exif=exif.tobytes()), LIMITS)
    assert list(picture.notes) == []
    result = finish(picture.rgb, picture, Sizes((40, 30), (40, 30), (40, 30), (40, 30), 0), 0)
    for suffix in (".jpg", ".png", ".webp", ".tiff", ".avif"):
        for said in (None, {"seed": 1}):
            save(result, tmp_path / f"out{suffix}", settings=said)
            written = Image.open(tmp_path / f"out{suffix}").getexif()
            details, gps = written.get_ifd(ExifTags.IFD.Exif), written.get_ifd(ExifTags.IFD.GPSInfo)
            assert written[ExifTags.Base.Artist].encode("latin-1") == artist, suffix
            assert details[ExifTags.Base.LensModel].encode("latin-1") == lens, suffix
            assert gps[ExifTags.GPS.GPSMapDatum].encode("latin-1") == place, suffix
            assert gps[ExifTags.GPS.GPSLatitudeRef] == "N"
            read_again = Image.Exif()
            read_again.load(read_picture(tmp_path / f"out{suffix}", LIMITS).exif)
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
    picture = read_picture(encoded(photograph(40, 30), "TIFF", exif=exif.tobytes()), LIMITS)
    kept = Image.Exif()
    kept.load(picture.exif)
    assert picture.rgb.size == (30, 40)
    assert kept[ExifTags.Base.Model] == "Brownie"
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff nonsense", b"Exif\0\0nonsense", b"Exif\0\0II"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_does_not_matter(kind: str, exif: bytes) -> None:
    dpi = {"dpi": (72, 72)} if kind == "JPEG" else {}  # without, Pillow itself looks into EXIF for it
    picture = read_picture(encoded(photograph(40, 30), kind, exif=exif, **dpi), LIMITS)
    assert picture.exif is None
    assert picture.rgb.size == (40, 30)


def test_colours_come_from_the_profile_and_go_back_to_it() -> None:
    orange = Image.new("RGB", (8, 8), (200, 90, 10))
    orange.info["icc_profile"] = turned_profile()
    picture = read_picture(orange, LIMITS)
    assert close(picture.rgb, Image.new("RGB", (8, 8), (10, 90, 200)), 1)
    result = finish(picture.rgb, picture, Sizes((8, 8), (16, 16), (16, 16), (16, 16), 0), 0)
    assert close(result, orange.resize((16, 16)), 1)
    assert result.info["icc_profile"] == picture.profile == turned_profile()


def test_a_profile_that_cannot_be_used_is_ignored_and_named() -> None:
    photo = photograph(8, 8)
    photo.info["icc_profile"] = b"no profile"
    picture = read_picture(photo, LIMITS)
    assert [text.partition(" (")[0] for text in picture.notes] == ["its colour profile cannot be used and was ignored"]
    assert picture.profile is None
    assert picture.rgb.tobytes() == photo.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff", ".avif"])
def test_outputs_carry_the_settings(suffix: str, tmp_path: Path) -> None:
    settings_ = {"seed": 7, "prompt": "a cat, naïve — 猫", "steps": 2, "weights": "tiny (embedded)", "version": "0"}
    save(photograph(16, 16), tmp_path / f"out{suffix}", settings=settings_)
    image = Image.open(tmp_path / f"out{suffix}")
    assert read_settings(image) == settings_
    assert read_settings(photograph(4, 4)) is None


def test_a_result_says_enough_to_be_made_again(upscaler: Upscaler, tmp_path: Path) -> None:
    made = upscaler.upscale(photograph(20, 20), scale=2, steps=1, prompt="fur")
    made.save(tmp_path / "out.png")
    written = read_settings(Image.open(tmp_path / "out.png"))
    again = upscaler.upscale(
        photograph(20, 20), scale=written["scale"], steps=written["steps"], seed=written["seed"], prompt="fur"
    )
    assert again.image.tobytes() == made.image.tobytes()
    assert written.keys() >= {"version", "weights", "prompt", "words", "color_fix"}


def test_quality_makes_files_smaller(tmp_path: Path) -> None:
    sizes = []
    for quality in (20, 95):
        save(photograph(200, 200), tmp_path / f"{quality}.jpg", SaveOptions(quality=quality))
        sizes.append((tmp_path / f"{quality}.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2
    with pytest.raises(OptionError, match="quality is 0"):
        SaveOptions.make(quality=0)


def test_colours_hidden_under_transparency_do_not_shine_through(upscaler: Upscaler) -> None:
    # An orange disc on transparent black, as many programs write it.
    disc = Image.new("L", (480, 480))
    rows, columns = np.mgrid[-240:240, -240:240]
    disc = Image.fromarray(((rows**2 + columns**2 < 150**2) * 255).astype(np.uint8)).resize((48, 48), Image.Resampling.BOX)
    colours = np.zeros((48, 48, 3), np.uint8)
    colours[np.asarray(disc) > 0] = (255, 140, 0)
    photo = Image.fromarray(colours)
    photo.putalpha(disc)
    image = upscaler.upscale(photo, scale=2, steps=1, seed=0).image
    assert image.mode == "RGBA"
    shown = Image.new("RGB", image.size, (255, 140, 0))
    shown.paste(image, mask=image.getchannel("A"))
    darkest = np.asarray(shown, dtype=int)[..., 0].min()
    assert darkest > 200, "no dark ring"


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_what_is_transparent_becomes_white_where_there_is_no_transparency(suffix: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (32, 16), (200, 30, 30, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 16))
    save(image, tmp_path / f"out{suffix}")
    written = Image.open(tmp_path / f"out{suffix}").convert("RGB")
    assert close(written.crop((0, 0, 16, 16)), Image.new("RGB", (16, 16), "white"), 1)
    assert close(written.crop((16, 0, 32, 16)), Image.new("RGB", (16, 16), (200, 30, 30)), 2)


def test_bleeding_keeps_what_is_visible() -> None:
    alpha = Image.new("L", (9, 7))
    alpha.paste(255, (3, 2, 6, 5))
    photo = photograph(9, 7)
    filled = np.asarray(bleed(photo, alpha), dtype=int)
    visible = np.asarray(alpha) > 0
    assert (filled[visible] == np.asarray(photo)[visible]).all()
    low, high = filled[visible].min(axis=0), filled[visible].max(axis=0)
    assert ((filled >= low) & (filled <= high)).all(), "all colours come from visible pixels"
    assert bleed(photo, Image.new("L", (9, 7))).size == (9, 7)
    assert bleed(photo, Image.new("L", (9, 7), 1)) is photo


@pytest.mark.parametrize(("mode", "most"), [("RGBA", 48), ("I;16", 12)])
def test_a_large_picture_takes_little_more_memory_than_its_pixels(mode: str, most: int) -> None:
    """What no plan for the models knows of: bytes a pixel that NumPy takes at most."""
    side = 800
    photo = photograph(side, side, mode if mode == "I;16" else "RGB")
    if mode == "RGBA":
        photo.putalpha(Image.linear_gradient("L").resize((side, side)))
    content = encoded(photo, "PNG")
    tracemalloc.start()
    try:
        read_picture(content, LIMITS)
        assert tracemalloc.get_traced_memory()[1] <= most * side * side
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path: Path, suffix: str) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from PIL import Image; from seesr.images.save import save\n"
        "from seesr import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try: save(Image.effect_noise((400, 400), 90).convert('RGB'), Path(sys.argv[1]))\n"
        "except OutputError as error: print(error)\n"
    )
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert "out" in done.stdout
    assert "cannot be written" in done.stdout
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_an_unknown_suffix_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no known picture suffix"):
        save(photograph(4, 4), tmp_path / "x.doc")


def test_text_that_unpacks_to_gigabytes_is_refused() -> None:
    text = PngInfo()
    text.add_text("Comment", "0" * 80_000_000, zip=True)
    content = encoded(photograph(8, 8), "PNG", pnginfo=text)
    assert len(content) < 1_000_000
    with pytest.raises(InputError, match="damaged"):
        read_picture(content, LIMITS)


DAMAGES = st.one_of(
    st.none(),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("flip"), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=8)),
    st.tuples(st.just("zeros"), st.floats(0, 1)),
)


def damaged(content: bytes, damage: tuple | None) -> bytes:
    """`content` cut short, with some bytes changed, or with a stretch of zeros."""
    if damage is None:
        return content
    kind, value = damage
    changed = bytearray(content)
    if kind == "cut":
        return content[: int(value * len(content))]
    if kind == "flip":
        for place, mask in value:
            changed[min(int(place * len(content)), len(content) - 1)] ^= mask
    else:
        start = int(value * len(content))
        changed[start : start + 40] = bytes(len(changed[start : start + 40]))
    return bytes(changed)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    width=st.integers(1, 48),
    height=st.integers(1, 48),
    kind_mode=st.sampled_from(KINDS),
    turn=st.integers(1, 8),
    damage=DAMAGES,
    scale=st.sampled_from([1, 1.5, 2.7]),
    suffix=st.sampled_from([".png", ".jpg", ".webp", ".bmp", ".tiff"]),
)
def test_any_file_gives_its_picture_or_a_sentence(
    upscaler: Upscaler,
    tmp_path: Path,
    width: int,
    height: int,
    kind_mode: tuple[str, str],
    turn: int,
    damage: tuple | None,
    scale: float,
    suffix: str,
) -> None:
    kind, mode = kind_mode
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    arguments = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    content = damaged(encoded(photograph(width, height, mode), kind, **arguments), damage)
    target = tmp_path / f"out{suffix}"
    target.unlink(missing_ok=True)
    upscaler.engine.limits, limits = SMALL, upscaler.engine.limits
    try:
        result = upscaler.upscale(content, scale=scale, steps=1, seed=0)
        save(result.image, target, settings=result.settings())
    except SeeSRError as error:
        refusal = str(error)
    else:
        refusal = None
    finally:
        upscaler.engine.limits = limits
    if refusal is not None:
        note(refusal)
        assert "\n" not in refusal
        # Of the result's sides, which are rounded.
        sides = [max(1, round(side * scale)) for side in (width, height)]
        assert damage is not None or max(sides) * 128 > 600 * min(sides)
        assert not target.exists()
        return
    if damage is None:
        turned = (height, width) if arguments and turn >= 5 else (width, height)
        assert result.sizes.input == turned
    assert result.sizes.output == tuple(max(1, round(side * scale)) for side in result.sizes.input)
    written = Image.open(target)
    written.load()
    assert written.size == result.sizes.output
    assert json.loads(json.dumps(result.settings())) == result.settings()
    assert result.settings()["dtype"] == "float32"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of Unix")
def test_a_pipe_is_read_no_further_than_allowed(tmp_path: Path) -> None:
    for limit, size in ((100_000, (40, 30)), (1000, None)):
        pipe = tmp_path / f"pipe{limit}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=_write, args=(pipe, encoded(photograph(40, 30), "PNG")))
        writer.start()
        if size:
            assert read_picture(pipe, Limits(input_bytes=limit)).rgb.size == size
        else:
            with pytest.raises(InputError, match="at most 1,000 are allowed"):
                read_picture(pipe, Limits(input_bytes=limit))
        writer.join()


def linear_grey() -> bytes:
    """The least ICC profile of a grey whose numbers are light."""
    white = struct.pack(">3i", 63190, 65536, 54061)
    tags = {
        b"desc": b"desc" + struct.pack(">II5s", 0, 5, b"grey") + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none",
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"kTRC": b"curv" + bytes(8),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", 132 + len(table) - 4 + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + white
    return head.ljust(128, b"\0") + table + body


def _write(pipe: Path, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.write_bytes(content)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_a_grey_profile_holds_for_every_kind_of_grey(mode: str) -> None:
    grey = photograph(40, 30, "L")
    if mode == "1":
        grey = grey.point(lambda value: 255 * (value > 128))
    transparent = {"transparency": 7} if mode == "L" else {}
    picture = read_picture(encoded(grey.convert(mode), "PNG", icc_profile=linear_grey(), **transparent), LIMITS)
    assert list(picture.notes) == ["its colours were converted to sRGB and stay in sRGB"]
    linear = np.asarray(grey) / 255
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(picture.rgb, dtype=float) - expected[..., None]).mean() < 1


def test_heic_and_avif_are_to_be_had() -> None:
    assert features.check("avif")
    assert read_picture(encoded(photograph(32, 32), "HEIF"), LIMITS).rgb.size == (32, 32)


def fuzzed(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 12)):
        changed[place] = rng.integers(256)
    return bytes(changed[: rng.integers(1, len(changed) + 1)] if rng.random() < 0.2 else changed)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "AVIF", "JPEG", "BMP", "HEIF"])
def test_damaged_animations_and_stacks_are_refused_in_a_sentence(kind: str) -> None:
    frames = [photograph(24, 18, "P" if kind == "GIF" else "RGB").rotate(angle) for angle in (0, 90, 180)]
    several = {} if kind in ("JPEG", "BMP") else {"save_all": True, "append_images": frames[1:]}
    content, rng = encoded(frames[0], kind, **several), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        try:
            read_picture(fuzzed(content, rng), SMALL)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 0


def test_only_known_formats_are_opened() -> None:
    content = encoded(photograph(8, 8), "PPM")
    with pytest.raises(InputError, match="not a picture in a known format"):
        read_picture(content, LIMITS)


def test_a_nearly_black_16_bit_picture_stays_so() -> None:
    dark = Image.fromarray(np.full((8, 8), 200, dtype=np.uint16))
    assert read_picture(encoded(dark, "PNG"), LIMITS).rgb.getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("peak", "white"),
    [(0.2, 1), (1.0, 1), (1.02, 1), (1.9, 1), (90, 255), (265, 255), (20_000, 65535), (7.5, 7.5), (1000, 1000)],
)
def test_floating_point_pictures_may_pass_white_a_little(peak: float, white: float) -> None:
    ramp = np.linspace(0, peak, 256, dtype=np.float32).reshape(16, 16)
    picture = read_picture(encoded(Image.fromarray(ramp), "TIFF"), LIMITS)
    expected = np.clip(ramp / white * 255, 0, 255).round()
    assert np.abs(np.asarray(picture.rgb)[..., 0] - expected).max() <= 1
    assert f"its values reach {peak:g}, {white:g} was taken as white" in picture.notes


def test_a_transparent_grey_of_16_bits_is_that_grey() -> None:
    grey = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    picture = read_picture(encoded(grey, "PNG", transparency=32768), LIMITS)
    assert np.asarray(picture.alpha).tolist() == [[255, 0, 255]]


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0)])
def test_no_pixels_are_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="it has no pixels"):
        read_picture(np.zeros(shape, dtype=np.uint8), LIMITS)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 2, 3), np.float32), r"the array is float32 of shape \(2, 2, 3\); give uint8"),
        (np.zeros((2, 2, 2), np.uint8), r"the array is uint8 of shape \(2, 2, 2\); give uint8"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"the array is uint8 of shape \(1, 2, 2, 3\); give uint8"),
    ],
    ids=["floating point", "two channels", "a batch"],
)
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_picture(array, LIMITS)


@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_high_quality_keeps_fine_colours(suffix: str, tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (220, 40, 40), (40, 40, 220)
    off = []
    for quality in (95, 89):
        save(Image.fromarray(stripes), path := tmp_path / f"{quality}{suffix}", SaveOptions(quality=quality))
        off.append(np.abs(np.asarray(Image.open(path).convert("RGB"), dtype=int) - stripes).mean())
    assert off[0] < 10
    assert off[1] > 40


@pytest.mark.parametrize(("suffix", "width"), [(".webp", 16_400), (".avif", 65_600), (".jpg", 65_600)])
def test_a_side_too_long_for_the_format_is_one_sentence(suffix: str, width: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written"):
        save(Image.new("RGB", (width, 2)), tmp_path / f"x{suffix}")
    assert not [*tmp_path.iterdir()]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    save(photograph(8, 8), tmp_path / f"{'n' * 251}.png")
    assert len([*tmp_path.iterdir()]) == 1


def test_much_exif_gives_way_to_the_settings(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 63_000
    image = photograph(8, 8)
    image.info["exif"] = exif.tobytes()
    said = {"prompt": "猫" * 1000}
    save(image, tmp_path / "out.jpg", settings=said)
    assert read_settings(Image.open(tmp_path / "out.jpg")) == said


def test_an_operator_may_allow_more_than_pillow_does() -> None:
    content = encoded(Image.new("1", (20_000, 10_000)), "PNG")
    with pytest.raises(InputError, match=r"20000x10000, 200,000,000 pixels; at most 199,000,000"):
        read_picture(content, Limits(input_pixels=199_000_000))
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_it_is_decoded_then(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(photograph(40, 30), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_picture(content, LIMITS).rgb.size == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 100
