"""More than 8 bits a channel: read whole, kept through profiles and stages, and written."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from helpers import cases, encoded, photo_in_mode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFilter

from seesr import OutputError, Upscaler
from seesr.images.edges import enhance_edges
from seesr.images.icc import ADOBE_RGB, BT2020, DISPLAY_P3, SRGB, build_profile, convert
from seesr.images.matrix_profiles import convert_samples
from seesr.images.read import read_picture
from seesr.images.resize import network_input
from seesr.images.samples import to_unit
from seesr.images.save import Deep, save
from seesr.images.sharpen import sharpen, sharpen_samples
from seesr.images.sizes import Sizes
from seesr.options import Limits, SaveOptions

LIMITS = Limits()
SHAPE = (24, 40)


def random_samples(channels: int, height: int = SHAPE[0], width: int = SHAPE[1], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (height, width, channels), np.uint16)


def deep_of(source: Any) -> np.ndarray:
    deep = read_picture(source, LIMITS).deep
    assert deep is not None
    return deep


def visible(samples: np.ndarray) -> np.ndarray:
    """RGB in 0..1."""
    colours = samples[..., :1] if samples.shape[2] < 3 else samples[..., :3]
    return np.broadcast_to(colours, (*samples.shape[:2], 3)) / 65535


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    kind = "rgb" if samples.shape[2] > 2 else "minisblack"
    extra = {"extrasamples": ["unassalpha"]} if samples.shape[2] in (2, 4) else {}
    tifffile.imwrite(buffer, samples if samples.shape[2] > 1 else samples[..., 0], photometric=kind, **extra, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_is_read_whole(channels: int) -> None:
    samples = random_samples(channels)
    if channels in (2, 4):
        samples[..., -1] |= 256  # visible
    content = imagecodecs.png_encode(samples if channels > 1 else samples[..., 0])
    assert np.abs(deep_of(content) - visible(samples)).max() < 1e-6
    alpha = read_picture(content, LIMITS).alpha
    assert (alpha is not None) == (channels in (2, 4))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        *({}, {"byteorder": ">"}, {"compression": "lzw", "predictor": True}, {"compression": "deflate", "byteorder": ">"}),
        *({"tile": (16, 16)}, {"compression": "deflate", "tile": (16, 16)}),
    ],
    ids=str,
)
def test_a_tiff_of_16_bits_is_read_whole(channels: int, options: dict[str, Any]) -> None:
    samples = random_samples(channels)
    if channels in (2, 4):
        samples[..., -1] |= 256
    assert np.abs(deep_of(tiff(samples, **options)) - visible(samples)).max() < 1e-6


def test_a_later_page_of_16_bits_is_read_whole() -> None:
    small, large = random_samples(3, 8, 8), random_samples(3)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(small, photometric="rgb", subfiletype=1)
        writer.write(large, photometric="rgb")
    assert np.abs(deep_of(buffer.getvalue()) - visible(large)).max() < 1e-6


@pytest.mark.parametrize("bits", [10, 12])
def test_a_heic_is_read_whole(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    ramp = np.broadcast_to(np.linspace(0, 65535, 1024).astype(np.uint16)[:, None], (32, 1024, 3))
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (1024, 32), ramp.tobytes()).save(buffer, quality=-1)
    picture = read_picture(buffer.getvalue(), LIMITS)
    assert picture.bits == bits
    assert picture.deep is not None
    assert np.abs(picture.deep - ramp / 65535).max() < 4 / 2**bits
    assert len(np.unique(picture.deep)) > 900


def test_an_avif_is_read_whole_where_imagecodecs_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.broadcast_to(np.arange(1024, dtype=np.uint16)[:, None], (32, 1024, 3))
    content = imagecodecs.avif_encode(np.ascontiguousarray(ramp), level=100, bitspersample=10)
    assert len(np.unique(deep_of(content))) > 900
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    picture = read_picture(content, LIMITS)
    assert picture.deep is None
    assert "10 bits a channel, of which 8 are read" in list(picture.notes)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_8_bits_are(orientation: int) -> None:
    samples = random_samples(3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = tiff(samples, extratags=[(0x0112, 3, 1, orientation, True)])
    eight = encoded(Image.fromarray((samples >> 8).astype(np.uint8)), "PNG", exif=exif.tobytes())
    expected = np.asarray(read_picture(eight, LIMITS).rgb)
    assert np.abs(deep_of(content) * 65535 / 256 - expected).max() <= 1


def test_an_array_may_have_16_bits_or_floating_point() -> None:
    samples = random_samples(3)
    assert np.abs(deep_of(samples) - samples / 65535).max() < 1e-6
    values = (samples / 65535).astype(np.float32)
    assert (deep_of(values) == values).all()
    assert deep_of(values[..., 0]).shape == (*SHAPE, 3)


def test_the_networks_see_what_8_bits_do_not_hold() -> None:
    samples = np.full((*SHAPE, 3), 30000, np.uint16)
    samples[:, SHAPE[1] // 2 :] += 60  # less than a quarter of a level of 8 bits
    sizes = Sizes(SHAPE[::-1], SHAPE[::-1], (80, 48), (80, 48), 0)
    seen = network_input([read_picture(imagecodecs.png_encode(samples), LIMITS).pixels], sizes)
    assert (seen[..., -1] - seen[..., 0]).numpy() == pytest.approx(60 / 65535, abs=1e-6)


PROFILES = {
    "Display P3": build_profile(DISPLAY_P3, None, "P3"),
    "Adobe RGB": build_profile(ADOBE_RGB, 2.2, "Adobe RGB"),
    "BT.2020": build_profile(BT2020, 2.4, "BT.2020"),
    "linear": build_profile(SRGB, 1.0, "linear"),
    "sRGB of LittleCMS": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_convert_as_littlecms_does(name: str) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    for source, target in ((None, PROFILES[name]), (PROFILES[name], None)):
        expected = np.asarray(convert(Image.fromarray(colours), source, target), float)
        converted = convert_samples(to_unit(colours, 255), source, target)
        assert converted is not None
        assert np.abs(converted * 255 - expected).max() <= 1.6


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_convert_back(name: str) -> None:
    """From a space to a wider one and back; in the dark a curve with few points loses a little."""
    values = np.random.default_rng(2).uniform(0.1, 1, (16, 16, 3)).astype(np.float32)
    there = convert_samples(values, None, PROFILES[name])
    assert there is not None
    back = convert_samples(there, PROFILES[name], None)
    assert back is not None
    assert np.abs(back - values).max() < 1e-3


def test_a_linear_picture_is_seen_as_srgb_and_comes_back_linear(upscaler: Upscaler) -> None:
    samples = np.broadcast_to(np.linspace(2000, 60000, 40).astype(np.uint16)[:, None], (*SHAPE, 3))
    content = tiff(np.ascontiguousarray(samples), iccprofile=PROFILES["linear"])
    result = upscaler.upscale(content, scale=1, steps=1, seed=0, bits=16)
    assert result.image.info["icc_profile"] == PROFILES["linear"]
    assert result.deep is not None
    middle = (slice(6, -6), slice(6, -6))
    difference = result.deep.samples[middle].astype(float) - samples[middle]
    assert abs(difference.mean()) < 500
    assert np.abs(difference).mean() < 2500


@settings(max_examples=cases(30), deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 40), channels=st.sampled_from([1, 2, 3, 4]), seed=st.integers(0, 99))
def test_16_bits_are_written_exactly(height: int, width: int, channels: int, seed: int) -> None:
    samples = random_samples(channels, height, width, seed)
    if seed % 2:
        samples = np.cumsum(samples // 1000, axis=seed % 3 % 2).astype(np.uint16)  # smooth: other filters
    image = Image.new({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels], (width, height))
    flat = samples if channels > 1 else samples[..., 0]
    for kind, decode in (("png", imagecodecs.png_decode), ("tiff", lambda content: tifffile.imread(io.BytesIO(content)))):
        buffer = io.BytesIO()
        save(image, buffer, SaveOptions(format=kind), {"seed": seed}, deep=Deep(samples, 16))
        assert (decode(buffer.getvalue()) == flat).all()
    assert np.abs(deep_of(buffer.getvalue()) - visible(samples)).max() < 1e-6 or channels in (2, 4)


def test_a_png_of_16_bits_keeps_profile_and_settings(tmp_path: Path) -> None:
    image = Image.new("RGB", SHAPE[::-1])
    image.info["icc_profile"] = PROFILES["Display P3"]
    save(image, tmp_path / "x.png", settings={"seed": 7}, deep=Deep(random_samples(3), 16))
    with Image.open(tmp_path / "x.png") as written:
        assert written.info["icc_profile"] == PROFILES["Display P3"]
        assert '"seed": 7' in written.info["seesr"]
        written.verify()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_gradient_keeps_more_than_a_thousand_levels(upscaler: Upscaler, tmp_path: Path, suffix: str) -> None:
    ramp = np.broadcast_to(np.linspace(0, 65535, 400).astype(np.uint16)[:, None], (64, 400, 3))
    source = imagecodecs.png_encode(np.ascontiguousarray(ramp))
    result = upscaler.upscale(source, scale=4, steps=1, seed=0, bits=16)
    result.save(tmp_path / f"x.{suffix}")
    written = imagecodecs.imread(tmp_path / f"x.{suffix}")
    assert written.dtype == np.uint16
    assert len(np.unique(written)) > 1000
    eight = upscaler.upscale(source, scale=4, steps=1, seed=0)
    assert np.abs(np.asarray(eight.image, int) - np.asarray(result.image, int)).max() <= 1
    assert np.abs(written / 257 - np.asarray(eight.image)).max() <= 1
    assert "16 bits a channel, the result has 8" in eight.notes
    assert "16 bits a channel, the result has 8" not in result.notes


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_bits_is_srgb(bits: int, tmp_path: Path) -> None:
    samples = np.broadcast_to(np.linspace(0, 65535, 1024).astype(np.uint16)[:, None], (32, 1024, 3))
    image = Image.new("RGB", (1024, 32))
    image.info["icc_profile"] = PROFILES["Display P3"]
    save(image, tmp_path / "x.avif", SaveOptions(quality=100), deep=Deep(samples, bits))
    picture = read_picture(tmp_path / "x.avif", LIMITS)
    assert (picture.bits, picture.profile) == (bits, None)
    assert picture.deep is not None
    assert len(np.unique(picture.deep)) > 900
    assert np.abs(picture.deep - samples / 65535).max() < 0.01, "grey stays grey in every space"


@pytest.mark.parametrize(("name", "bits"), [("x.jpg", 16), ("x.webp", 10), ("x.png", 12), ("x.avif", 16), ("x.bmp", 16)])
def test_a_format_without_these_bits_is_refused(name: str, bits: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"is not written with {bits} bits a channel; use"):
        save(Image.new("RGB", (4, 4)), tmp_path / name, deep=Deep(random_samples(3, 4, 4), bits))
    assert list(tmp_path.iterdir()) == []


def test_transparency_and_grey_stay(upscaler: Upscaler) -> None:
    samples = random_samples(2)
    samples[..., 1] = 65535
    samples[: SHAPE[0] // 2, :, 1] = 0
    result = upscaler.upscale(imagecodecs.png_encode(samples), scale=2, steps=1, seed=0, bits=16)
    assert result.image.mode == "LA"
    assert result.deep is not None
    assert result.deep.samples.shape == (48, 80, 2)
    assert {result.deep.samples[2, 40, 1], result.deep.samples[-2, 40, 1]} == {0, 65535}


def test_edges_and_sharpening_agree_with_8_bits() -> None:
    photo = photo_in_mode(64, 48).filter(ImageFilter.GaussianBlur(1))
    values = to_unit(np.asarray(photo), 255)
    sharper = np.asarray(sharpen(photo, 0.5), float) - sharpen_samples(values, 0.5) * 255
    assert np.abs(sharper).mean() < 1, "Pillow's blur is made of boxes"
    enhanced = enhance_edges(values, 1)
    assert isinstance(enhanced, np.ndarray)
    assert np.abs(np.asarray(enhance_edges(photo, 1), float) - enhanced * 255).max() <= 0.51
