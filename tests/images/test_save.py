"""Writing pictures: whole or not at all, with their settings, in every format."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import MODES, is_close, photo_in_mode, swapped_profile
from PIL import ExifTags, Image

from seesr import OptionError, OutputError, Upscaler
from seesr.files import atomic_write
from seesr.images.metadata import Metadata, read_settings
from seesr.images.save import save
from seesr.options import SaveOptions

KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff", ".avif"])
def test_outputs_carry_the_settings(suffix: str, tmp_path: Path) -> None:
    settings_ = {"seed": 7, "prompt": "a cat, naïve — 猫", "steps": 2, "weights": "tiny (embedded)", "version": "0"}
    save(photo_in_mode(16, 16), tmp_path / f"out{suffix}", settings=settings_)
    image = Image.open(tmp_path / f"out{suffix}")
    assert read_settings(image) == settings_
    assert read_settings(photo_in_mode(4, 4)) is None


def test_a_result_says_enough_to_be_made_again(upscaler: Upscaler, tmp_path: Path) -> None:
    made = upscaler.upscale(photo_in_mode(20, 20), scale=2, steps=1, prompt="fur")
    made.save(tmp_path / "out.png")
    written = read_settings(Image.open(tmp_path / "out.png"))
    again = upscaler.upscale(
        photo_in_mode(20, 20), scale=written["scale"], steps=written["steps"], seed=written["seed"], prompt="fur"
    )
    assert again.image.tobytes() == made.image.tobytes()
    assert written.keys() >= {"version", "weights", "prompt", "words", "color_fix"}


def test_quality_makes_files_smaller(tmp_path: Path) -> None:
    sizes = []
    for quality in (20, 95):
        save(photo_in_mode(200, 200), tmp_path / f"{quality}.jpg", SaveOptions(quality=quality))
        sizes.append((tmp_path / f"{quality}.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2
    with pytest.raises(OptionError, match="quality is 0"):
        SaveOptions.make(quality=0)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_what_is_transparent_becomes_white_where_there_is_no_transparency(suffix: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (32, 16), (200, 30, 30, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 16))
    save(image, tmp_path / f"out{suffix}")
    written = Image.open(tmp_path / f"out{suffix}").convert("RGB")
    assert is_close(written.crop((0, 0, 16, 16)), Image.new("RGB", (16, 16), "white"), 1)
    assert is_close(written.crop((16, 0, 32, 16)), Image.new("RGB", (16, 16), (200, 30, 30)), 2)


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


def test_a_replaced_file_keeps_its_permissions_and_a_link_its_place(tmp_path: Path) -> None:
    private, link, fresh = tmp_path / "store" / "private.png", tmp_path / "link.png", tmp_path / "fresh.png"
    private.parent.mkdir()
    private.touch(0o600)
    private.chmod(0o640)
    link.symlink_to(private)
    dangling = tmp_path / "dangling.png"
    dangling.symlink_to(private.parent / "later.png")
    mask = os.umask(0o022)
    try:
        for path in (link, dangling, fresh):
            with atomic_write(path) as temporary:
                assert temporary.stat().st_mode & 0o777 == (0o600 if path == link else 0o644)
                save(photo_in_mode(8, 8), temporary.with_suffix(".png"))
                temporary.with_suffix(".png").replace(temporary)
    finally:
        os.umask(mask)
    assert [Path(os.readlink(path)) for path in (link, dangling)] == [private, private.parent / "later.png"]
    assert [path.stat().st_mode & 0o777 for path in (private, dangling, fresh)] == [0o640, 0o644, 0o644]
    assert [Image.open(path).size for path in (private, dangling, fresh)] == [(8, 8)] * 3
    assert len([*tmp_path.rglob("*")]) == 6


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to others")
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "theirs.png"
    path.touch(0o640)
    os.chown(path, 1234, 4321)
    save(photo_in_mode(8, 8), path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 4321, 0o640)


@pytest.mark.parametrize("kind", ["png", "JPEG", ".tif", "webp", "avif", "bmp"])
def test_an_open_file_gets_the_same_bytes_as_a_path(upscaler: Upscaler, tmp_path: Path, kind: str) -> None:
    made = upscaler.upscale(photo_in_mode(20, 20), scale=1, steps=1, seed=1)
    options, buffer = SaveOptions(format=kind), io.BytesIO()
    made.save(path := tmp_path / f"out.{options.format}", options)
    buffer.write(b"before")
    made.save(buffer, options)
    assert buffer.getvalue() == b"before" + path.read_bytes()
    assert not buffer.closed
    with pytest.raises(OptionError, match="an open file has no suffix that gives its format"):
        made.save(buffer)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_tiff_is_compressed_without_loss(mode: str, tmp_path: Path) -> None:
    image, exif, profile = photo_in_mode(300, 1700, mode), Image.Exif(), swapped_profile()
    exif[ExifTags.Base.Artist] = "Emile"
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (50.0, 1.0, 2.0)}
    image.info |= {"icc_profile": profile}
    save(image, tmp_path / "out.tiff", settings={"seed": 7}, metadata=Metadata(exif=exif.tobytes()))
    written = Image.open(tmp_path / "out.tiff")
    assert (written.info["compression"], written.mode) == ("tiff_adobe_deflate", mode)
    assert np.array_equal(np.asarray(written), np.asarray(image))
    assert (tmp_path / "out.tiff").stat().st_size < 0.9 * np.asarray(image).nbytes
    assert read_settings(written) == {"seed": 7}
    assert written.info["icc_profile"] == profile
    assert written.getexif()[ExifTags.Base.Artist] == "Emile"
    assert written.getexif().get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (50.0, 1.0, 2.0)


def test_without_its_package_jpeg_xl_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(OutputError, match=r"x\.jxl: JPEG XL needs the package pillow-jxl-plugin; pip install"):
        save(photo_in_mode(4, 4), tmp_path / "x.jxl")


def test_jpeg_xl_has_colours_transparency_and_settings(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    image = photo_in_mode(32, 32, "RGBA")
    image.putalpha(100)
    image.info["icc_profile"] = swapped_profile()
    save(image, path := tmp_path / "x.jxl", SaveOptions(quality=100), {"seed": 7})
    written = Image.open(path)
    assert written.getchannel("A").getextrema() == (100, 100)
    swapped = Image.merge("RGB", image.convert("RGB").split()[::-1])
    assert is_close(written, swapped, 2), "the package writes no profile, so that the colours are sRGB's"
    assert read_settings(written) == {"seed": 7}


def test_an_unknown_suffix_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no known picture suffix"):
        save(photo_in_mode(4, 4), tmp_path / "x.doc")


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
    save(photo_in_mode(8, 8), tmp_path / f"{'n' * 251}.png")
    assert len([*tmp_path.iterdir()]) == 1


def test_much_exif_gives_way_to_the_settings(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 66_000
    image = photo_in_mode(8, 8)
    said = {"prompt": "猫" * 1000}
    notes = save(image, tmp_path / "out.jpg", settings=said, metadata=Metadata(exif=exif.tobytes()))
    assert notes == ["JPEG has no room for all of the input's metadata; left out: EXIF ImageDescription"]
    assert read_settings(Image.open(tmp_path / "out.jpg")) == said
