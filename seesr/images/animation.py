"""Writes animations and pages frame by frame, so that memory holds one frame however many there are.

GIF by GIF89a, PNG by its third edition (2025), WebP by its container specification, TIFF by TIFF 6.0. Pillow compresses
each frame; its own writers of animations would keep all of them.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import GifImagePlugin, Image

from seesr.errors import OptionError, OutputError
from seesr.files import atomic_write
from seesr.images.frames import ENDLESS, MAX_DENOMINATOR, FrameSequence
from seesr.images.icc import convert, is_grey_profile
from seesr.images.metadata import gif_comment, metadata_arguments
from seesr.images.png import PNG_SIGNATURE, chunks
from seesr.images.save import Target, pillow_format, save
from seesr.images.tiff import write_tiff
from seesr.options import SaveOptions

MAX_FILE = 2**32 - 1
"""Bytes to which a TIFF and a WebP can point."""


class FrameWriter(Protocol):
    """Takes the frames of one file in their order."""

    def add(self, image: Image.Image, duration: Fraction | None, settings: dict[str, Any] | None = None) -> None:
        """Writes a frame.

        Args:
            image: L, LA, RGB or RGBA, with profile and EXIF in its `info`; in an animation all have one size.
            duration: seconds for which it is shown; None outside animations.
            settings: those that made it; the first frame's go into the file.
        """
        ...

    def close(self) -> None:
        """Writes what comes after the last frame."""
        ...


@contextmanager
def write_frames(
    target: Target, sequence: FrameSequence, options: SaveOptions | None = None, name: str | None = None
) -> Iterator[FrameWriter]:
    """Yields a writer of all frames to `target`, which is moved into place, or to an open file, after the block succeeded.

    Of one frame the file is that of `save`, except as GIF. Pages go into a TIFF only; an animation into PNG (APNG), WebP,
    GIF, or the pages of a TIFF, which holds no durations.

    Args:
        target: as of `save`.
        sequence: of the input.
        name: the name of the file in error messages; by default its path.

    Raises:
        OutputError: the format does not hold the frames, or the file cannot be written. A file that was there before stays.
        OptionError: of an open file the format is not given.
    """
    options = options or SaveOptions()
    if isinstance(target, str | os.PathLike):
        path, stream = Path(target), None
    elif options.format is None:
        raise OptionError("an open file has no suffix that gives its format; give it in SaveOptions(format=...).")
    else:
        path, stream = Path(f"the file.{options.format}"), target
    name = name or str(path)
    image_format = pillow_format(path, all_frames=True)
    _check_format(image_format, sequence, name)
    try:
        if stream is not None:
            with tempfile.TemporaryFile() as file:  # what was written is changed at the end, which a pipe does not allow
                yield from _writing(file, image_format, path, sequence, options, name)
                file.seek(0)
                shutil.copyfileobj(file, stream)
        else:
            with atomic_write(path) as temporary, temporary.open("r+b") as file:
                yield from _writing(file, image_format, path, sequence, options, name)
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {error.strerror or error}.") from error


def _writing(
    file: IO[bytes], image_format: str, path: Path, sequence: FrameSequence, options: SaveOptions, name: str
) -> Iterator[FrameWriter]:
    writer = _Checked(_writer(file, image_format, path, sequence, options, name), image_format, file, name)
    yield writer
    writer.close()


def _check_format(image_format: str, sequence: FrameSequence, name: str) -> None:
    if sequence.count == 1 or image_format == "TIFF":
        return
    if sequence.kind == "pages":
        raise OutputError(
            f"{name}: {image_format} holds one picture, and the input has {sequence.count} pages; "
            "write TIFF, or take the first page alone."
        )
    if image_format not in ANIMATIONS:
        raise OutputError(
            f"{name}: {image_format} holds one picture, and the input has {sequence.count} frames; "
            "write PNG, WebP or GIF, or take the first frame alone."
        )


def _writer(
    file: IO[bytes], image_format: str, path: Path, sequence: FrameSequence, options: SaveOptions, name: str
) -> FrameWriter:
    if sequence.count == 1 and image_format != "GIF":
        return _OnePicture(file, options.model_copy(update={"format": path.suffix[1:].lower()}), name)
    return {**ANIMATIONS, "TIFF": _Tiff}[image_format](file, sequence, options)


class _Checked:
    """A writer whose errors are sentences."""

    def __init__(self, writer: FrameWriter, image_format: str, file: IO[bytes], name: str) -> None:
        self.writer, self.image_format, self.file, self.name = writer, image_format, file, name

    def add(self, image: Image.Image, duration: Fraction | None, settings: dict[str, Any] | None = None) -> None:
        try:
            self.writer.add(image, duration, settings)
            too_large = self.image_format in ("TIFF", "WEBP") and self.file.tell() > MAX_FILE
        except struct.error:  # a number that does not fit into 32 bits
            too_large = True
        except (ValueError, RuntimeError) as error:  # WebP raises these where a side is too long for the format
            size = f"{image.width}x{image.height}"
            raise OutputError(f"{self.name} cannot be written as {self.image_format} of {size}: {error}.") from error
        if too_large:
            raise OutputError(f"{self.name} is larger than {MAX_FILE:,} bytes, {self.image_format}'s limit; take fewer.")

    def close(self) -> None:
        self.writer.close()


class _OnePicture:
    """The one frame of an input, as `save` writes it."""

    def __init__(self, file: IO[bytes], options: SaveOptions, name: str) -> None:
        self.file, self.options, self.name = file, options, name

    def add(self, image: Image.Image, duration: Fraction | None, settings: dict[str, Any] | None = None) -> None:
        save(image, self.file, self.options, settings, self.name)

    def close(self) -> None:
        pass


class _Clock:
    """Durations as whole ticks, rounded so that no frame's moment is off by more than half a tick."""

    def __init__(self, ticks: int, most: int) -> None:
        self.ticks, self.most, self.end, self.rounded = ticks, most, Fraction(0), 0

    def next(self, duration: Fraction | None) -> int:
        self.end += duration or 0
        length = min(round(self.end * self.ticks) - self.rounded, self.most)
        self.rounded += length
        return length


class _Profile:
    """The profile of the first frame, in which all are written: a file of coloured frames has one, and none of grey."""

    def __init__(self, first: Image.Image) -> None:
        profile = first.info.get("icc_profile")
        self.content: bytes | None = None if profile is None or is_grey_profile(profile) else profile

    def apply(self, image: Image.Image) -> Image.Image:
        """`image` as RGB or RGBA."""
        rgb = convert(image.convert("RGB"), image.info.get("icc_profile"), self.content)
        if image.mode in ("LA", "RGBA"):
            rgb.putalpha(image.getchannel("A"))
        return rgb


class _Apng:
    """Portable Network Graphics, third edition: the first frame is the picture of programs that know no animations.

    All frames are RGBA, because a file has one kind of samples, and a later frame may be transparent.
    """

    def __init__(self, file: IO[bytes], sequence: FrameSequence, options: SaveOptions) -> None:
        self.file, self.plays, self.options = file, min(sequence.plays, 2**31 - 1), options
        self.frames = self.numbered = self.control = 0

    def add(self, image: Image.Image, duration: Fraction | None, settings: dict[str, Any] | None = None) -> None:
        arguments: dict[str, Any] = {}
        if is_first := self.frames == 0:
            self.profile = _Profile(image)
            exif = image.info.get("exif") if self.options.metadata else None
            arguments = metadata_arguments("PNG", exif, settings) | {"icc_profile": self.profile.content}
            self.file.write(PNG_SIGNATURE)
        self.frames += 1
        begun = False
        for chunk in chunks(_encode(self.profile.apply(image).convert("RGBA"), "PNG", arguments)):
            kind, data = chunk[4:8], chunk[8:-4]
            if kind == b"IDAT":
                if not begun:
                    self._begin_frame(image, duration)
                    begun = True
                if is_first:
                    self.file.write(chunk)
                else:
                    self._write(b"fdAT", self._number() + data)
            elif is_first and kind != b"IEND":
                self.file.write(chunk)
                if kind == b"IHDR":
                    self.control = self.file.tell()
                    self._write_control()

    def close(self) -> None:
        self._write(b"IEND", b"")
        self.file.seek(self.control)
        self._write_control()

    def _begin_frame(self, image: Image.Image, duration: Fraction | None) -> None:
        seconds = duration or Fraction(0)
        # As exact as two numbers of 16 bits can be; what is longer than they can say is as long as they can.
        seconds = min(seconds, Fraction(MAX_DENOMINATOR))
        delay = seconds.limit_denominator(min(MAX_DENOMINATOR, int(MAX_DENOMINATOR / max(seconds, 1))))
        place, replace = (0, 0), (0, 0)  # without disposal or blending
        numbers = image.size + place + (delay.numerator, delay.denominator) + replace
        self._write(b"fcTL", self._number() + struct.pack(">IIIIHHBB", *numbers))

    def _number(self) -> bytes:
        self.numbered += 1
        return struct.pack(">I", self.numbered - 1)

    def _write_control(self) -> None:
        self._write(b"acTL", struct.pack(">II", self.frames, self.plays))

    def _write(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


class _WebP:
    """WebP's container (RIFF): each frame is a whole picture, which replaces the one before."""

    ICC, ALPHA, EXIF, ANIMATION = 0x20, 0x10, 0x08, 0x02
    NO_BLENDING = 0x02

    def __init__(self, file: IO[bytes], sequence: FrameSequence, options: SaveOptions) -> None:
        self.file, self.plays, self.options = file, min(sequence.plays, 65_535), options
        self.clock, self.flags, self.frames, self.size, self.exif = _Clock(1000, 2**24 - 1), self.ANIMATION, 0, (0, 0), b""

    def add(self, image: Image.Image, duration: Fraction | None, settings: dict[str, Any] | None = None) -> None:
        if self.frames == 0:
            self._begin(image, settings)
        self.frames += 1
        pixels = self.profile.apply(image)
        self.flags |= self.ALPHA if pixels.mode == "RGBA" else 0
        bitstreams = _webp_bitstreams(_encode(pixels, "WEBP", {"quality": self.options.quality}))
        place, milliseconds = bytes(6), self.clock.next(duration).to_bytes(3, "little")
        header = place + self._size() + milliseconds + bytes([self.NO_BLENDING])
        self._write(b"ANMF", header + b"".join(bitstreams))

    def close(self) -> None:
        if self.exif:
            self._write(b"EXIF", self.exif)
        length = self.file.tell()
        self.file.seek(4)
        self.file.write(struct.pack("<I", length - 8) + b"WEBP")
        self._write_header()

    def _begin(self, image: Image.Image, settings: dict[str, Any] | None) -> None:
        self.size, self.profile = image.size, _Profile(image)
        exif = image.info.get("exif") if self.options.metadata else None
        self.exif = metadata_arguments("WEBP", exif, settings).get("exif", b"").removeprefix(b"Exif\0\0")
        self.flags |= (self.EXIF if self.exif else 0) | (self.ICC if self.profile.content else 0)
        self.file.write(b"RIFF" + bytes(4) + b"WEBP")
        self._write_header()
        if self.profile.content:
            self._write(b"ICCP", self.profile.content)
        self._write(b"ANIM", bytes(4) + struct.pack("<H", self.plays))

    def _size(self) -> bytes:
        return b"".join((side - 1).to_bytes(3, "little") for side in self.size)

    def _write_header(self) -> None:
        self._write(b"VP8X", bytes([self.flags, 0, 0, 0]) + self._size())

    def _write(self, kind: bytes, data: bytes) -> None:
        self.file.write(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2))


class _Gif:
    """GIF89a: each frame has a palette of its own of 255 colours in sRGB; half transparency is all or nothing."""

    TRANSPARENT = 255
    KEEP, CLEAR = 1, 2
    """Disposal: the next frame is drawn over this one, or over nothing."""

    def __init__(self, file: IO[bytes], sequence: FrameSequence, options: SaveOptions) -> None:
        self.file, self.plays, self.options = file, min(sequence.plays, 65_536), options
        self.clock, self.size = _Clock(100, 65_535), (0, 0)
        self.waiting: tuple[Image.Image, int, bool] | None = None
        """The last frame, its hundredths of a second, and whether it is transparent anywhere."""

    def add(self, image: Image.Image, duration: Fraction | None, settings: dict[str, Any] | None = None) -> None:
        rgb = convert(image.convert("RGB"), image.info.get("icc_profile"), None)
        paletted = rgb.quantize(self.TRANSPARENT)
        colours = paletted.getpalette() or []
        paletted.putpalette(colours + [0] * (3 * 256 - len(colours)))  # so that the transparent one is among them
        hidden = image.getchannel("A").point([255] * 128 + [0] * 128) if "A" in image.getbands() else None
        if is_transparent := hidden is not None and hidden.getbbox() is not None:
            paletted.paste(self.TRANSPARENT, mask=hidden)
        if self.waiting is None:
            self._begin(image, settings)
        self._write_waiting(is_transparent)
        self.waiting = paletted, self.clock.next(duration), is_transparent

    def close(self) -> None:
        self._write_waiting(False)
        self.file.write(b";")

    def _begin(self, image: Image.Image, settings: dict[str, Any] | None) -> None:
        self.file.write(b"GIF89a" + struct.pack("<HHBBB", *image.size, 0, 0, 0))
        if self.plays != 1:
            repetitions = 0 if self.plays == ENDLESS else self.plays - 1
            self.file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", repetitions, 0))
        if settings is not None:
            comment = gif_comment(settings)
            blocks = [comment[first : first + 255] for first in range(0, len(comment), 255)]
            self.file.write(b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0")

    def _write_waiting(self, next_is_transparent: bool) -> None:
        if self.waiting is None:
            return
        paletted, hundredths, is_transparent = self.waiting
        disposal = self.CLEAR if is_transparent or next_is_transparent else self.KEEP
        # Programs such as Pillow take an animation for opaque whose first frame has no transparent colour.
        arguments: dict[str, Any] = {"duration": 10 * hundredths, "disposal": disposal, "transparency": self.TRANSPARENT}
        blocks = GifImagePlugin.getdata(paletted, include_color_table=True, **arguments)
        self.file.writelines(blocks)
        blocks.clear()  # it is in a cycle of references, which would keep it for a while


class _Tiff:
    """TIFF 6.0: pages, each with its own size, profile and EXIF, of which the first has the settings."""

    def __init__(self, file: IO[bytes], sequence: FrameSequence, options: SaveOptions) -> None:
        self.file, self.options, self.pointer = file, options, 0

    def add(self, image: Image.Image, duration: Fraction | None, settings: dict[str, Any] | None = None) -> None:
        exif = image.info.get("exif") if self.options.metadata else None
        arguments = metadata_arguments("TIFF", exif, settings if self.pointer == 0 else None)
        page = self.file.seek(0, os.SEEK_END)
        if page % 2:  # directories begin at an even place
            self.file.write(b"\0")
        page = page + page % 2 or 8  # the first comes after the header
        write_tiff(self.file, np.asarray(image), arguments.get("exif"), image.info.get("icc_profile"))
        end = self.file.tell()
        if self.pointer:
            self.file.seek(self.pointer)
            self.file.write(struct.pack("<I", page))
        self.file.seek(page)
        (entries,) = struct.unpack("<H", self.file.read(2))
        self.pointer = page + 2 + 12 * entries
        self.file.seek(end)

    def close(self) -> None:
        pass


ANIMATIONS = {"PNG": _Apng, "WEBP": _WebP, "GIF": _Gif}


def _encode(image: Image.Image, image_format: str, arguments: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **arguments)
    return buffer.getvalue()


def _webp_bitstreams(content: bytes) -> Iterator[bytes]:
    """The chunks of a WebP that hold pixels."""
    place = 12
    while place < len(content):
        (length,) = struct.unpack("<I", content[place + 4 : place + 8])
        end = place + 8 + length + length % 2
        if content[place : place + 4] in (b"ALPH", b"VP8 ", b"VP8L"):
            yield content[place:end]
        place = end
