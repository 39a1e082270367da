"""Animations and pages: read as a viewer shows them, written frame by frame, as other programs read them."""

from __future__ import annotations

import gc
import io
import tracemalloc
import weakref
from fractions import Fraction
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from helpers import cases, encoded, is_close, photo_in_mode, swapped_profile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageSequence

from seesr import InputError, OptionError, OutputError
from seesr.images.animation import write_frames
from seesr.images.frame_writers import OutputFrame
from seesr.images.frames import FrameSequence
from seesr.images.metadata import Metadata, read_settings
from seesr.images.read import FIRST_FRAME, Frame, read_frames, read_picture
from seesr.options import Limits, SaveOptions

LIMITS = Limits()
SETTINGS = {"seed": 7, "prompt": "a cat, naïve — 猫"}
TICKS = {"png": 65_535, "webp": 1000, "gif": 100}
"""Parts of a second in which each format counts, at least."""


def frame(number: int, size: tuple[int, int] = (30, 20), mode: str = "RGB") -> Image.Image:
    """A photograph, another for each number; with a hole where the mode has alpha."""
    image = photo_in_mode(*size, mode.removesuffix("A")).rotate(37 * number)
    image.info.clear()
    if mode.endswith("A"):
        alpha = Image.new("L", size, 255)
        alpha.paste(0, (0, 0, (size[0] + number % 2) // 2, size[1]))
        image.putalpha(alpha)
    return image


def written(
    path: Path,
    frames: list[Image.Image],
    durations: list[Fraction],
    plays: int = 0,
    metadata: Metadata | None = None,
) -> Path:
    with write_frames(path, FrameSequence("animation", range(len(frames)), plays), SaveOptions(quality=100)) as writer:
        for image, duration in zip(frames, durations, strict=True):
            writer.add(OutputFrame(image, duration, SETTINGS, metadata=metadata))
    return path


def copy_frames(source: Path, target: Path) -> None:
    sequence, frames = read_frames(source, LIMITS)
    with write_frames(target, sequence) as writer:
        for one in frames:
            writer.add(OutputFrame(one.picture.rgb, one.duration))


def frames_of(source: bytes | Path | Image.Image, limits: Limits = LIMITS) -> tuple[FrameSequence, list[Frame]]:
    sequence, frames = read_frames(source, limits)
    return sequence, list(frames)


@settings(max_examples=cases(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["png", "webp", "gif"]),
    modes=st.lists(st.sampled_from(["L", "LA", "RGB", "RGBA"]), min_size=2, max_size=5),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    milliseconds=st.lists(st.integers(0, 700_000), min_size=5, max_size=5),
    plays=st.integers(0, 65_535),
)
def test_an_animation_comes_back(
    kind: str, modes: list[str], size: tuple[int, int], milliseconds: list[int], plays: int, tmp_path: Path
) -> None:
    frames = [frame(number, size, mode) for number, mode in enumerate(modes)]
    durations = [Fraction(value, 1000) for value in milliseconds[: len(frames)]]
    path = written(tmp_path / f"out.{kind}", frames, durations, plays)
    sequence, back = frames_of(path)
    assert (sequence.kind, sequence.count, sequence.plays) == ("animation", len(frames), plays)
    assert read_settings(Image.open(path)) == SETTINGS
    end = Fraction(0)
    for number, (image, duration, read) in enumerate(zip(frames, durations, back, strict=True)):
        assert read.duration is not None
        end += read.duration
        if kind == "png":
            assert abs(read.duration - duration) <= Fraction(1, 90), "as exact as 16 bits are"
            assert duration > 60 or read.duration == duration
        else:
            assert abs(end - sum(durations[: number + 1])) <= Fraction(1, 2 * TICKS[kind])
        shown, expected = read.picture, read_picture(image, LIMITS)
        assert (shown.alpha is None) == (expected.alpha is None)
        if expected.alpha is not None and shown.alpha is not None:
            assert is_close(shown.alpha, expected.alpha, 0)
        assert is_close(shown.rgb, expected.rgb, {"png": 0, "webp": 12, "gif": 12}[kind])


def test_other_programs_see_the_same(tmp_path: Path) -> None:
    frames, durations = [frame(number, (32, 24)) for number in range(4)], [Fraction(1, 8)] * 4
    expected = np.stack([np.asarray(image) for image in frames]).astype(int)
    png, gif, webp, tiff = (written(tmp_path / f"out.{kind}", frames, durations) for kind in ("png", "gif", "webp", "tiff"))
    assert (imagecodecs.apng_decode(png.read_bytes())[..., :3] == expected).all()
    assert np.abs(imagecodecs.gif_decode(gif.read_bytes()) - expected).mean() < 3
    by_number = np.stack([imagecodecs.webp_decode(webp.read_bytes(), index=number)[..., :3] for number in range(4)])
    assert np.abs(by_number - expected).mean() < 6
    assert (tifffile.imread(tiff) == expected).all()
    assert [shown.info["duration"] for shown in ImageSequence.Iterator(Image.open(png))] == [125] * 4


def test_durations_and_loops_of_one_format_are_those_of_another(tmp_path: Path) -> None:
    durations = [Fraction(value, 100) for value in (4, 0, 250)]
    path, frames = tmp_path / "0.gif", [frame(number) for number in range(3)]
    written(path, frames, durations, plays=4)
    for number, kind in enumerate(["webp", "png", "tiff", "gif", "webp", "gif"], start=1):
        sequence, read = frames_of(path)
        if kind != "tiff":
            path = tmp_path / f"{number}.{kind}"
            written(path, [one.picture.rgb for one in read], [one.duration or Fraction(0) for one in read], sequence.plays)
    sequence, read = frames_of(path)
    assert (sequence.plays, [one.duration for one in read]) == (4, durations)


@pytest.mark.parametrize(("plays", "said"), [(0, 0), (1, None), (3, 2)])
def test_a_gif_counts_repetitions(plays: int, said: int | None, tmp_path: Path) -> None:
    path = written(tmp_path / "out.gif", [frame(0), frame(1)], [Fraction(1)] * 2, plays)
    assert Image.open(path).info.get("loop") == said


def test_disposal_blending_and_a_default_picture_are_as_a_viewer_shows_them() -> None:
    shown = [Image.new("RGBA", (20, 10), "red"), Image.new("RGBA", (20, 10)), Image.new("RGBA", (20, 10), "blue")]
    shown[1].paste("lime", (5, 2, 15, 8))
    shown[2].paste((0, 0, 0, 0), (0, 0, 4, 4))
    default = Image.new("RGBA", (20, 10), "white")
    content = encoded(default, "PNG", save_all=True, append_images=shown, default_image=True, duration=[40, 50, 60], loop=5)
    sequence, frames = frames_of(content)
    assert (sequence.count, sequence.plays) == (3, 5)
    assert [one.duration for one in frames] == [Fraction(4, 100), Fraction(5, 100), Fraction(6, 100)]
    assert read_picture(content, LIMITS).rgb.getpixel((0, 0)) == (255, 255, 255), "alone it is what it always was"
    gif = encoded(shown[2], "GIF", save_all=True, append_images=shown[1::-1], disposal=2, duration=100)
    for read, images in ((frames, shown), (frames_of(gif)[1], shown[::-1])):
        for one, expected in zip(read, images, strict=True):
            alpha = one.picture.alpha or Image.new("L", (20, 10), 255)
            assert is_close(alpha, expected.getchannel("A"), 0)
            visible = Image.new("RGB", (20, 10))
            visible.paste(one.picture.rgb, mask=alpha)
            assert is_close(visible, Image.alpha_composite(Image.new("RGBA", (20, 10), "black"), expected), 1)
    delta = Image.new("RGBA", (20, 10))
    delta.paste("lime", (5, 2, 15, 8))
    over = encoded(shown[0], "PNG", save_all=True, append_images=[delta], blend=[0, 1], duration=10)
    second = frames_of(over)[1][1].picture
    assert (second.alpha, second.rgb.getpixel((0, 0)), second.rgb.getpixel((9, 5))) == (None, (255, 0, 0), (0, 255, 0))


def made_by(name: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = name
    return exif.tobytes()


def test_pages_keep_what_is_their_own(tmp_path: Path) -> None:
    pages, names = [frame(0, (30, 21)), frame(1, (17, 40), "L"), frame(2, (9, 9), "RGBA"), frame(3, (13, 5))], "abcd"
    pages[0].info["icc_profile"] = swapped_profile()
    path = tmp_path / "out.tiff"
    with write_frames(path, FrameSequence("pages", range(4))) as writer:
        for image, name in zip(pages, names, strict=True):
            writer.add(OutputFrame(image, settings=SETTINGS, metadata=Metadata(exif=made_by(name))))
    opened = Image.open(path)
    assert [read_settings(page) for page in ImageSequence.Iterator(opened)] == [SETTINGS, None, None, None]
    sequence, read = frames_of(path)
    assert (sequence.kind, sequence.count) == ("pages", 4)
    with tifffile.TiffFile(path) as other:
        for image, name, one, page in zip(pages, names, read, other.pages, strict=True):
            picture = one.picture
            assert picture.metadata.exif is not None
            assert name.encode() in picture.metadata.exif
            assert (picture.profile is not None) == (image is pages[0])
            assert picture.mode == ("L" if image.mode == "L" else "RGB")
            assert FIRST_FRAME not in picture.notes
            assert (page.asarray() == np.asarray(image)).all()


def test_pages_are_found_among_reduced_copies_and_kinds_that_pillow_does_not_know(tmp_path: Path) -> None:
    path, floats = tmp_path / "in.tif", np.asarray(photo_in_mode(12, 8), dtype=np.float32) / 255
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.asarray(frame(0)), photometric="rgb")
        writer.write(np.asarray(frame(0, (6, 4))), photometric="rgb", subfiletype=1)
        writer.write(floats, photometric="rgb")
        planes = np.asarray(frame(1)).transpose(2, 0, 1)
        writer.write(planes, photometric="rgb", planarconfig="separate")
    sequence, read = frames_of(path)
    assert list(sequence.numbers) == [0, 2, 3]
    for one, expected in zip(read, [frame(0), photo_in_mode(12, 8), frame(1)], strict=True):
        assert is_close(one.picture.rgb, expected, 0.5)
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.asarray(frame(0)), photometric="rgb")
        writer.write(np.asarray(frame(0, (6, 4))), photometric="rgb", subfiletype=1)
    opened = Image.open(path)
    for source in (path, opened):
        sequence, (one,) = frames_of(source)
        assert sequence.kind == "picture"
        assert is_close(one.picture.rgb, frame(0), 0)


def test_pictures_in_a_heic_are_pages_and_previews_of_a_camera_are_not() -> None:
    heif = pillow_heif.HeifFile()
    for number, size in enumerate([(64, 48), (32, 80)]):
        heif.add_from_pillow(frame(number, size))
    buffer = io.BytesIO()
    heif.save(buffer, quality=90)
    sequence, read = frames_of(buffer.getvalue())
    assert (sequence.kind, [one.picture.rgb.size for one in read]) == ("pages", [(64, 48), (32, 80)])
    camera = encoded(frame(0), "MPO", save_all=True, append_images=[frame(1)])
    sequence, (one,) = frames_of(camera)
    assert (sequence.kind, list(one.picture.notes)) == ("picture", [])


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff", "gif"])
def test_one_frame_goes_into_every_format(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"out.{kind}", [frame(0)], [Fraction(1)])
    opened = Image.open(path)
    assert getattr(opened, "n_frames", 1) == 1
    assert is_close(opened, frame(0), 6)
    assert read_settings(opened) == SETTINGS


def test_animations_keep_profile_and_camera_data(tmp_path: Path) -> None:
    profile, metadata = swapped_profile(), Metadata(exif=made_by("Somebody"))
    frames = [frame(number) for number in range(2)]
    for image in frames:
        image.info["icc_profile"] = profile
    in_srgb = read_picture(frames[1], LIMITS).srgb
    for kind in ("png", "webp", "gif"):
        path = written(tmp_path / f"out.{kind}", frames, [Fraction(1)] * 2, metadata=metadata)
        opened = Image.open(path)
        assert opened.info.get("icc_profile") == (None if kind == "gif" else profile)
        assert opened.getexif().get(ExifTags.Base.Artist) == (None if kind == "gif" else "Somebody")
        assert is_close(frames_of(path)[1][1].picture.srgb, in_srgb, 6)


def test_frames_beyond_the_first_that_are_damaged_are_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    for kind in ("png", "gif", "webp", "tiff"):
        content = written(tmp_path / f"in.{kind}", [frame(0, (80, 60))] * 3, [Fraction(1)] * 3).read_bytes()
        source = tmp_path / f"cut.{kind}"
        source.write_bytes(content[: len(content) * 6 // 7] + bytes(len(content) // 7 if kind == "webp" else 0))
        target = tmp_path / f"out.{kind}"
        target.write_bytes(b"old")
        with pytest.raises(InputError, match=r"cut\.\w+ is damaged or cut short"):
            copy_frames(source, target)
        assert target.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))


def test_limits_hold_for_each_frame_and_for_their_number(tmp_path: Path) -> None:
    frames = [frame(number) for number in range(5)]
    few = Limits(frames=4)
    for kind in ("png", "gif", "webp", "tiff"):
        path = written(tmp_path / f"in.{kind}", frames, [Fraction(1)] * 5)
        with pytest.raises(InputError, match=r"has more than 4 frames; .* SEESR_FRAMES"):
            read_frames(path, few)
        assert len(frames_of(path, Limits(frames=5))[1]) == 5
        assert read_picture(path, few).rgb.size == (30, 20), "of the first alone the number does not matter"
    path = tmp_path / "pages.tiff"
    with write_frames(path, FrameSequence("pages", range(2))) as writer:
        writer.add(OutputFrame(frame(0)))
        writer.add(OutputFrame(frame(0, (300, 200))))
    _, pages = read_frames(path, Limits(input_pixels=1000))
    assert next(pages).picture.rgb.size == (30, 20)
    with pytest.raises(InputError, match=r"page 2 of .*pages\.tiff is 300x200, 60,000 pixels; at most 1,000"):
        next(pages)


def test_a_format_that_does_not_hold_the_frames_is_refused_before_any_work(tmp_path: Path) -> None:
    for kind, sequence, words in (
        ("png", FrameSequence("pages", range(3)), "PNG holds one picture, and the input has 3 pages; write TIFF"),
        ("jpg", FrameSequence("animation", range(3)), "JPEG holds one picture, .* 3 frames; write PNG, WebP or GIF"),
    ):
        with pytest.raises(OutputError, match=words), write_frames(tmp_path / f"out.{kind}", sequence):
            pytest.fail("no frame is asked for")
    with pytest.raises(OptionError, match="give it in SaveOptions"), write_frames(io.BytesIO(), FrameSequence()):
        pytest.fail("no frame is asked for")
    with pytest.raises(OutputError, match=r"cannot be written as WEBP of 17000x1"):
        written(tmp_path / "out.webp", [Image.new("RGB", (17_000, 1))] * 2, [Fraction(1)] * 2)
    assert not list(tmp_path.iterdir())


def test_an_open_file_that_cannot_seek_gets_the_whole(tmp_path: Path) -> None:
    class Pipe:
        content = b""

        def write(self, content: bytes) -> None:
            self.content += content

    frames, durations = [frame(0), frame(1)], [Fraction(1)] * 2
    for kind in ("png", "webp", "gif", "tiff"):
        pipe = Pipe()
        with write_frames(pipe, FrameSequence("animation", range(2)), SaveOptions.make(format=kind, quality=100)) as writer:
            for image, duration in zip(frames, durations, strict=True):
                writer.add(OutputFrame(image, duration, SETTINGS))
            assert not pipe.content
        assert pipe.content == written(tmp_path / f"out.{kind}", frames, durations, plays=1).read_bytes()


@pytest.mark.parametrize("kind", ["png", "webp", "gif", "tiff"])
def test_frames_are_not_kept(kind: str, tmp_path: Path) -> None:
    noise = Image.effect_noise((120, 120), 90).convert("RGB")
    count, alive, peaks = 24, list[weakref.ref[Image.Image]](), list[int]()
    tracemalloc.start()
    try:
        with write_frames(tmp_path / f"out.{kind}", FrameSequence("animation", range(count))) as writer:
            for number in range(count):
                image = noise.rotate(number)
                alive.append(weakref.ref(image))
                writer.add(OutputFrame(image, Fraction(1)))
                del image
                gc.collect()
                peaks.append(tracemalloc.get_traced_memory()[0])
                assert sum(one() is not None for one in alive) <= 1
    finally:
        tracemalloc.stop()
    assert peaks[-1] - peaks[3] < 20_000, "less than one frame"
    assert (tmp_path / f"out.{kind}").stat().st_size > count * 5_000
