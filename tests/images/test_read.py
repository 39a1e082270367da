"""Reading pictures: every format and mode, whole and broken, decoded right or refused in a sentence."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import MODES, cases, encoded, is_close, photo_in_mode, sharing, swapped_profile
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, features
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import TiffImageFile

from seesr import InputError, SeeSRError, Upscaler
from seesr.images.read import Frame, read_frames, read_picture
from seesr.images.save import save
from seesr.options import Limits

LIMITS = Limits()
SMALL = Limits(input_pixels=100_000, output_side=600)
KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_every_format_and_mode_is_decoded(kind: str, mode: str) -> None:
    image = photo_in_mode(40, 30, mode)
    picture = read_picture(encoded(image, kind), LIMITS)
    assert picture.rgb.size == (40, 30)
    assert picture.rgb.mode == "RGB"
    expected = photo_in_mode(40, 30, {"1": "1", "P": "P"}.get(mode, "L" if mode in ("L", "LA", "I;16", "F") else "RGB"))
    assert is_close(picture.rgb, expected, 6)
    assert picture.bits == {"I;16": 16, "F": 32}.get(mode, 8)


def png_of(width: int, bits: int, colour: int, row: bytes, transparent: bytes | None = None) -> bytes:
    """One row, written by hand, perhaps with one transparent colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" + row))]
    if transparent is not None:
        parts.insert(1, (b"tRNS", transparent))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


def test_16_bit_colour_is_read_whole() -> None:
    # Pillow opens such files as 8-bit and says nothing.
    content = png_of(2, 16, 2, np.array([[65535, 0, 32768], [0, 65535, 257]], dtype=">u2").tobytes())
    picture = read_picture(content, LIMITS)
    assert picture.bits == 16
    assert picture.deep is not None
    assert (picture.deep[0] * 65535).round().tolist() == [[65535, 0, 32768], [0, 65535, 257]]
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
        (tiff_of(np.array([0, 1024, 2048, 4095]), 12), [0, 64, 128, 255], ""),
        (tiff_of(np.array([0, 13107, 65535], "<u2"), 16), [0, 51, 255], ""),
        (tiff_of(np.array([0, 13107, 65535], "<u2"), 16, white_is_zero=True), [255, 204, 0], ""),
        (tiff_of(np.array([0, 2**31, 2**32 - 1], "<u4"), 32), [0, 128, 255], ""),
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
    assert is_close(picture.rgb, frames[0], 1)


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
    assert is_close(picture.rgb, frames[0], 0)


def test_a_bmp_without_a_profile_has_the_colours_in_srgb(tmp_path: Path) -> None:
    orange = Image.new("RGB", (8, 6), (200, 120, 40))
    turned = orange.copy()
    turned.info["icc_profile"] = swapped_profile()
    save(turned, tmp_path / "turned.bmp")
    save(orange, tmp_path / "plain.bmp")
    assert is_close(Image.open(tmp_path / "turned.bmp"), read_picture(turned, LIMITS).rgb, 0)
    assert is_close(Image.open(tmp_path / "plain.bmp"), orange, 0)


def test_a_phone_s_picture_with_a_preview_is_one_picture() -> None:
    frames = [photo_in_mode(40, 30), photo_in_mode(8, 6)]
    content = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 2
    picture = read_picture(content, LIMITS)
    assert list(picture.notes) == []
    assert is_close(picture.rgb, frames[0], 6)


@pytest.mark.parametrize(("mode", "most"), [("RGBA", 48), ("I;16", 12)])
def test_a_large_picture_takes_little_more_memory_than_its_pixels(mode: str, most: int) -> None:
    """What no plan for the models knows of: bytes a pixel that NumPy takes at most."""
    side = 800
    photo = photo_in_mode(side, side, mode if mode == "I;16" else "RGB")
    if mode == "RGBA":
        photo.putalpha(Image.linear_gradient("L").resize((side, side)))
    content = encoded(photo, "PNG")
    tracemalloc.start()
    try:
        read_picture(content, LIMITS)
        assert tracemalloc.get_traced_memory()[1] <= most * side * side
    finally:
        tracemalloc.stop()


def test_text_that_unpacks_to_gigabytes_is_refused() -> None:
    text = PngInfo()
    text.add_text("Comment", "0" * 80_000_000, zip=True)
    content = encoded(photo_in_mode(8, 8), "PNG", pnginfo=text)
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


@pytest.fixture(scope="module")
def limited(upscaler: Upscaler) -> Upscaler:
    return sharing(upscaler, limits=SMALL)


@settings(deadline=None, max_examples=cases(30), suppress_health_check=list(HealthCheck))
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
    limited: Upscaler,
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
    content = damaged(encoded(photo_in_mode(width, height, mode), kind, **arguments), damage)
    target = tmp_path / f"out{suffix}"
    target.unlink(missing_ok=True)
    try:
        result = limited.upscale(content, scale=scale, steps=1, seed=0)
        save(result.image, target, settings=result.settings())
    except SeeSRError as error:
        refusal = str(error)
    else:
        refusal = None
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
        writer = threading.Thread(target=_write, args=(pipe, encoded(photo_in_mode(40, 30), "PNG")))
        writer.start()
        if size:
            assert read_picture(pipe, Limits(input_bytes=limit)).rgb.size == size
        else:
            with pytest.raises(InputError, match="at most 1,000 are allowed"):
                read_picture(pipe, Limits(input_bytes=limit))
        writer.join()


def _write(pipe: Path, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.write_bytes(content)


def test_heic_and_avif_are_to_be_had() -> None:
    assert features.check("avif")
    assert read_picture(encoded(photo_in_mode(32, 32), "HEIF"), LIMITS).rgb.size == (32, 32)


def fuzzed(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 12)):
        changed[place] = rng.integers(256)
    return bytes(changed[: rng.integers(1, len(changed) + 1)] if rng.random() < 0.2 else changed)


def read_all_frames(content: bytes, limits: Limits) -> list[Frame]:
    _, frames = read_frames(content, limits)
    return list(frames)


@pytest.mark.parametrize("read", [read_picture, read_all_frames])
@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "AVIF", "JPEG", "BMP", "HEIF"])
def test_damaged_animations_and_stacks_are_refused_in_a_sentence(kind: str, read: Callable[..., object]) -> None:
    frames = [photo_in_mode(24, 18, "P" if kind == "GIF" else "RGB").rotate(angle) for angle in (0, 90, 180)]
    several = {} if kind in ("JPEG", "BMP") else {"save_all": True, "append_images": frames[1:]}
    content, rng = encoded(frames[0], kind, **several), np.random.default_rng(0)
    refused = 0
    for _ in range(150 if read is read_picture else 40):
        try:
            read(fuzzed(content, rng), SMALL)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 0


def test_only_known_formats_are_opened() -> None:
    content = encoded(photo_in_mode(8, 8), "PPM")
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
    assert f"the input's values reach {peak:g}, {white:g} was taken as white" in picture.notes


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
        (np.full((2, 2, 3), 255.0), r"the array's values go from 255 to 255; give them from 0 to 1"),
        (np.full((2, 2, 3), np.nan), r"the array's values go from nan to nan"),
        (np.zeros((2, 2, 3), np.int32), r"the array is int32 of shape \(2, 2, 3\); give uint8"),
        (np.zeros((2, 2, 2), np.uint8), r"the array is uint8 of shape \(2, 2, 2\); give uint8"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"the array is uint8 of shape \(1, 2, 2, 3\); give uint8"),
    ],
    ids=["0 to 255", "not a number", "signed", "two channels", "a batch"],
)
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_picture(array, LIMITS)


def test_an_operator_may_allow_more_than_pillow_does() -> None:
    content = encoded(Image.new("1", (20_000, 10_000)), "PNG")
    with pytest.raises(InputError, match=r"20000x10000, 200,000,000 pixels; at most 199,000,000"):
        read_picture(content, Limits(input_pixels=199_000_000))
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_it_is_decoded_then(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(photo_in_mode(40, 30), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_picture(content, LIMITS).rgb.size == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_open_files_and_other_bytes_are_read(tmp_path: Path) -> None:
    photo = photo_in_mode(40, 30)
    content = encoded(photo, "PNG")
    (tmp_path / "photo.png").write_bytes(content)
    with (tmp_path / "photo.png").open("rb") as file:
        for source in (file, io.BytesIO(content), bytearray(content), memoryview(content)):
            assert read_picture(source, LIMITS).rgb.tobytes() == photo.tobytes()
    for source, words in (
        (io.BytesIO(content[:300]), "the file is damaged or cut short"),
        (io.BytesIO(b""), "the file is empty"),
        (io.StringIO("text"), "the open file gives str; open it in binary mode"),
        ("https://example.org/a.png", "https://example.org/a.png is an address; give a file, or its bytes"),
    ):
        with pytest.raises(InputError, match=words):
            read_picture(source, LIMITS)
    with pytest.raises(InputError, match="the file has 11 bytes; at most 10 are allowed"):
        read_picture(io.BytesIO(bytes(100)), Limits(input_bytes=10))
