"""Files of rarer kinds: TIFF in planes or with previews, raw files, and what other programs still show."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import encoded, photo_in_mode
from PIL import Image, ImageCms

from seesr import InputError
from seesr.images.alpha import enlarge_alpha
from seesr.images.read import read_picture
from seesr.images.save import save
from seesr.options import Limits, SaveOptions

LIMITS = Limits()


def gradient() -> np.ndarray:
    ramp = np.linspace(0, 65535, 96).round()
    samples = np.zeros((64, 96, 3), np.uint16)
    samples[..., 0], samples[..., 1], samples[:32, :, 2] = ramp, ramp[::-1], 65535
    return samples


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "deflate"}, {"tile": (32, 32)}])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_in_planes_is_read_right(bits: int, options: dict[str, Any]) -> None:
    samples = gradient() if bits == 16 else (gradient() >> 8).astype(np.uint8)
    content = tiff(samples.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **options)
    difference = np.asarray(read_picture(content, LIMITS).rgb, float) - gradient() / 257
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("kind", ["float16", "float32", "uint32"])
def test_rare_samples_are_read(kind: str) -> None:
    relative = gradient() / 65535
    samples = (relative * (np.iinfo(kind).max if kind == "uint32" else 1)).astype(kind)
    picture = read_picture(tiff(samples, photometric="rgb"), LIMITS)
    assert np.abs(np.asarray(picture.rgb, float) - relative * 255).max() <= 1
    assert picture.bits == 8 * samples.itemsize
    assert picture.deep is not None
    assert (
        np.abs(picture.deep - relative).max() < 1e-3 if kind == "float16" else np.abs(picture.deep - relative).max() < 1e-6
    )


def test_what_is_not_read_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    content = tiff(np.zeros((8, 8, 5), np.uint8), photometric="separated", extrasamples=["unassalpha"])
    with pytest.raises(InputError, match="is a TIFF of 5 uint8 samples a pixel, SEPARATED, which is not read"):
        read_picture(content, LIMITS)
    with pytest.raises(InputError, match=r"is 8x8, 64 pixels; at most 9 are allowed"):
        read_picture(tiff(np.zeros((8, 8, 3), np.float32), photometric="rgb"), Limits(input_pixels=9))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match=r"that Pillow does not read; pip install 'seesr\[formats\]' to read it"):
        read_picture(content, LIMITS)


def test_the_page_that_is_no_preview_is_the_picture() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.full((12, 16, 3), 120, np.uint8), photometric="rgb", subfiletype=1)
        writer.write((gradient() >> 8).astype(np.uint8), photometric="rgb", subfiletype=0)
    picture = read_picture(buffer.getvalue(), LIMITS)
    assert picture.rgb.size == (96, 64)
    assert "page 2 is used, for those before it are reduced copies or masks" in list(picture.notes)


def dng() -> bytes:
    """A camera's raw file: a small preview, the sensor's values in a sub-directory."""
    sensor = np.tile((np.arange(256) * 257).astype(np.uint16), (192, 1))
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        version = (50706, 1, 4, bytes([1, 4, 0, 0]), True)
        writer.write(np.full((12, 16, 3), 120, np.uint8), photometric="rgb", subifds=1, subfiletype=1, extratags=[version])
        pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes([0, 1, 1, 2]), True)]
        writer.write(sensor, photometric=32803, subfiletype=0, extratags=pattern)
    return buffer.getvalue()


def test_a_raw_file_is_never_taken_for_its_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = read_picture(dng(), LIMITS)
    assert picture.rgb.size == (256, 192)
    assert any("developed by LibRaw" in note for note in picture.notes)
    with pytest.raises(InputError, match="is a camera's raw file that LibRaw cannot read"):
        read_picture(b"FUJIFILMCCD-RAW" + bytes(500), LIMITS)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    for content in (dng(), b"IIRO" + bytes(500), b"II*\0\x10\0\0\0CR" + bytes(500), b"\0\0\0\x18ftypcrx " + bytes(500)):
        with pytest.raises(InputError, match=r"is a camera's raw file; pip install 'seesr\[formats\]' to read it"):
            read_picture(content, LIMITS)


def test_a_large_profile_and_a_large_text_in_a_png() -> None:
    photo = photo_in_mode(40, 30)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    large = srgb + np.random.default_rng(0).integers(0, 256, 2_000_000, np.uint8).tobytes()
    large = len(large).to_bytes(4, "big") + large[4:]
    assert read_picture(encoded(photo, "PNG", icc_profile=large), LIMITS).profile == large
    text = zlib.compress(bytes(2_000_000))
    chunk = b"zTXt" + b"Comment\0\0" + text
    content = encoded(photo, "PNG")
    content = content[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    assert read_picture(content, LIMITS).rgb.size == (40, 30)


def test_a_jpeg_that_lacks_only_its_end() -> None:
    content = encoded(photo_in_mode(96, 64), "JPEG", quality=95)
    whole = read_picture(content, LIMITS)
    for length in (1, 2):
        picture = read_picture(content[:-length], LIMITS)
        assert picture.rgb.tobytes() == whole.rgb.tobytes()
        assert list(picture.notes) == ["the input lacks its end marker, but no pixel"]
    for length in (3, 5, 40, 400):
        with pytest.raises(InputError, match="is damaged or cut short"):
            read_picture(content[:-length], LIMITS)


def test_a_text_with_a_wrong_checksum_is_left_out() -> None:
    photo = photo_in_mode(40, 30)
    chunk = b"tEXtComment\0hello"
    content = encoded(photo, "PNG")
    content = content[:33] + struct.pack(">I", len(chunk) - 4) + chunk + b"oops" + content[33:]
    picture = read_picture(content, LIMITS)
    assert picture.rgb.tobytes() == photo.tobytes()
    assert list(picture.notes) == ["damaged texts in the input were left out"]


def test_only_the_transparent_colour_of_16_bits_is_transparent() -> None:
    row = np.array([[1000, 2000, 3000], [1001, 2000, 3000], [1000, 2000, 3001], [1000, 2000, 3000]], ">u2")

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, 16, 2, 0, 0, 0)),
        (b"tRNS", struct.pack(">3H", 1000, 2000, 3000)),
        (b"IDAT", zlib.compress(b"\0" + row.tobytes())),
        (b"IEND", b""),
    ]
    picture = read_picture(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts), LIMITS)
    assert picture.alpha is not None
    assert [*picture.alpha.tobytes()] == [0, 255, 255, 0]


def test_a_hard_edge_of_transparency_becomes_a_smooth_line() -> None:
    rows, columns = np.mgrid[:64, :64]
    disc = np.where((rows - 31.5) ** 2 + (columns - 31.5) ** 2 < 24**2, 255, 0).astype(np.uint8)
    made = np.asarray(enlarge_alpha(Image.fromarray(disc), (256, 256)), float) / 255
    rows, columns = np.mgrid[:256, :256]
    distance = np.hypot(rows - 127.5, columns - 127.5) - 96
    ideal = (0.5 - distance / 2).clip(0, 1)
    bicubic = np.asarray(Image.fromarray(disc).resize((256, 256), Image.Resampling.BICUBIC), float) / 255
    assert np.abs(made - ideal).mean() < 0.7 * np.abs(bicubic - ideal).mean()
    assert made[distance < -4].min() == 1
    assert made[distance > 4].max() == 0
    soft = Image.fromarray((columns[:64, :64] * 4).astype(np.uint8))
    assert enlarge_alpha(soft, (128, 128)).tobytes() == soft.resize((128, 128), Image.Resampling.BICUBIC).tobytes()


def test_jpeg_xl_is_read_by_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photo = photo_in_mode(40, 30)
    save(photo, tmp_path / "photo.jxl", SaveOptions(quality=100))
    assert read_picture(tmp_path / "photo.jxl", LIMITS).rgb.tobytes() == photo.tobytes()
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(InputError, match=r"photo.jxl is a JPEG XL; pip install 'seesr\[jxl\]' to read it"):
        read_picture(tmp_path / "photo.jxl", LIMITS)


@pytest.mark.parametrize("compression", ["lzw", "deflate", "jpeg"])
def test_a_damaged_tiff_writes_nothing_to_the_terminal(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = tiff((gradient() >> 8).astype(np.uint8), photometric="rgb", compression=compression)
    with pytest.raises(InputError, match="is damaged or cut short"):
        read_picture(content[: len(content) // 2], LIMITS)
    assert capfd.readouterr() == ("", "")
