"""Writers of frames, one for each format, which hold one frame at a time.

GIF by GIF89a, PNG by its third edition (2025), WebP by its container specification, TIFF by TIFF 6.0. Pillow compresses
each frame; its own writers of animations would keep all of them.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import IO, Any, Protocol

import numpy as np
from PIL import GifImagePlugin, Image

from seesr.images.frames import ENDLESS, MAX_DENOMINATOR, FrameSequence
from seesr.images.icc import convert, is_grey_profile
from seesr.images.metadata import Metadata, metadata_arguments
from seesr.images.metadata.ifd import EXIF_PREFIX
from seesr.images.metadata.settings import gif_comment
from seesr.images.png import PNG_SIGNATURE, chunk, chunks
from seesr.images.save import Deep, written_metadata
from seesr.images.sizes import Size
from seesr.images.tiff import write_tiff
from seesr.notes import Notes
from seesr.options import SaveOptions


@dataclass(frozen=True, eq=False)
class OutputFrame:
    """A frame to write."""

    image: Image.Image
    """L, LA, RGB or RGBA, with its profile in `info`; in an animation all have one size."""
    duration: Fraction | None = None
    """Seconds for which it is shown; None outside animations."""
    settings: dict[str, Any] | None = None
    """Those that made it; the first frame's go into the file."""
    metadata: Metadata | None = None
    """Of an animation the first frame's goes into the file, of pages each one's."""
    deep: Deep | None = None
    """Samples of more than 8 bits, which pages hold."""


class FrameWriter(Protocol):
    """Takes the frames of one file in their order."""

    def add(self, frame: OutputFrame) -> None:
        """Writes a frame."""
        ...

    def close(self) -> None:
        """Writes what comes after the last frame."""
        ...


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


class ApngWriter:
    """Portable Network Graphics, third edition: the first frame is the picture of programs that know no animations.

    All frames are RGBA, because a file has one kind of samples, and a later frame may be transparent.
    """

    def __init__(self, file: IO[bytes], sequence: FrameSequence, options: SaveOptions, notes: Notes) -> None:
        self.file, self.plays, self.options, self.notes = file, min(sequence.plays, 2**31 - 1), options, notes
        self.frames = self.numbered = self.control = 0

    def add(self, frame: OutputFrame) -> None:
        arguments: dict[str, Any] = {}
        if is_first := self.frames == 0:
            self.profile = _Profile(frame.image)
            arguments = _metadata("PNG", frame, self.options, self.notes) | {"icc_profile": self.profile.content}
            self.file.write(PNG_SIGNATURE)
        self.frames += 1
        begun = False
        for part in chunks(_encode(self.profile.apply(frame.image).convert("RGBA"), "PNG", arguments)):
            kind, data = part[4:8], part[8:-4]
            if kind == b"IDAT":
                if not begun:
                    self._begin_frame(frame.image.size, frame.duration)
                    begun = True
                if is_first:
                    self.file.write(part)
                else:
                    self._write(b"fdAT", self._number() + data)
            elif is_first and kind != b"IEND":
                self.file.write(part)
                if kind == b"IHDR":
                    self.control = self.file.tell()
                    self._write_control()

    def close(self) -> None:
        self._write(b"IEND", b"")
        self.file.seek(self.control)
        self._write_control()

    def _begin_frame(self, size: Size, duration: Fraction | None) -> None:
        seconds = duration or Fraction(0)
        # As exact as two numbers of 16 bits can be; what is longer than they can say is as long as they can.
        seconds = min(seconds, Fraction(MAX_DENOMINATOR))
        delay = seconds.limit_denominator(min(MAX_DENOMINATOR, int(MAX_DENOMINATOR / max(seconds, 1))))
        place, replacing = (0, 0), (0, 0)  # without disposal or blending
        numbers = size + place + (delay.numerator, delay.denominator) + replacing
        self._write(b"fcTL", self._number() + struct.pack(">IIIIHHBB", *numbers))

    def _number(self) -> bytes:
        self.numbered += 1
        return struct.pack(">I", self.numbered - 1)

    def _write_control(self) -> None:
        self._write(b"acTL", struct.pack(">II", self.frames, self.plays))

    def _write(self, kind: bytes, data: bytes) -> None:
        self.file.write(chunk(kind, data))


class WebPWriter:
    """WebP's container (RIFF): each frame is a whole picture, which replaces the one before."""

    ICC, ALPHA, EXIF, XMP, ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02
    NO_BLENDING = 0x02

    def __init__(self, file: IO[bytes], sequence: FrameSequence, options: SaveOptions, notes: Notes) -> None:
        self.file, self.plays, self.options, self.notes = file, min(sequence.plays, 65_535), options, notes
        self.clock, self.flags, self.frames, self.size = _Clock(1000, 2**24 - 1), self.ANIMATION, 0, (0, 0)
        self.exif = self.xmp = b""

    def add(self, frame: OutputFrame) -> None:
        if self.frames == 0:
            self._begin(frame)
        self.frames += 1
        pixels = self.profile.apply(frame.image)
        self.flags |= self.ALPHA if pixels.mode == "RGBA" else 0
        bitstreams = _webp_bitstreams(_encode(pixels, "WEBP", {"quality": self.options.quality}))
        place, milliseconds = bytes(6), self.clock.next(frame.duration).to_bytes(3, "little")
        header = place + self._size() + milliseconds + bytes([self.NO_BLENDING])
        self._write(b"ANMF", header + b"".join(bitstreams))

    def close(self) -> None:
        if self.exif:
            self._write(b"EXIF", self.exif)
        if self.xmp:
            self._write(b"XMP ", self.xmp)
        length = self.file.tell()
        self.file.seek(4)
        self.file.write(struct.pack("<I", length - 8) + b"WEBP")
        self._write_header()

    def _begin(self, first: OutputFrame) -> None:
        self.size, self.profile = first.image.size, _Profile(first.image)
        arguments = _metadata("WEBP", first, self.options, self.notes)
        self.exif, self.xmp = arguments.get("exif", b"").removeprefix(EXIF_PREFIX), arguments.get("xmp", b"")
        self.flags |= (self.EXIF if self.exif else 0) | (self.XMP if self.xmp else 0)
        self.flags |= self.ICC if self.profile.content else 0
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


class GifWriter:
    """GIF89a: each frame has a palette of its own of 255 colours in sRGB; half transparency is all or nothing."""

    TRANSPARENT = 255
    KEEP, CLEAR = 1, 2
    """Disposal: the next frame is drawn over this one, or over nothing."""

    def __init__(self, file: IO[bytes], sequence: FrameSequence, options: SaveOptions, notes: Notes) -> None:
        self.file, self.plays, self.options, self.notes = file, min(sequence.plays, 65_536), options, notes
        self.clock, self.size = _Clock(100, 65_535), (0, 0)
        self.waiting: tuple[Image.Image, int, bool] | None = None
        """The last frame, its hundredths of a second, and whether it is transparent anywhere."""

    def add(self, frame: OutputFrame) -> None:
        image = frame.image
        rgb = convert(image.convert("RGB"), image.info.get("icc_profile"), None)
        paletted = rgb.quantize(self.TRANSPARENT)
        colours = paletted.getpalette() or []
        paletted.putpalette(colours + [0] * (3 * 256 - len(colours)))  # so that the transparent one is among them
        hidden = image.getchannel("A").point([255] * 128 + [0] * 128) if "A" in image.getbands() else None
        if is_transparent := hidden is not None and hidden.getbbox() is not None:
            paletted.paste(self.TRANSPARENT, mask=hidden)
        if self.waiting is None:
            self._begin(frame)
        self._write_waiting(is_transparent)
        self.waiting = paletted, self.clock.next(frame.duration), is_transparent

    def close(self) -> None:
        self._write_waiting(False)
        self.file.write(b";")

    def _begin(self, first: OutputFrame) -> None:
        metadata = written_metadata(first.metadata, self.options)
        if metadata != metadata.anonymous():
            self.notes.add("GIF holds no metadata but a comment: the input's was left out")
        self.file.write(b"GIF89a" + struct.pack("<HHBBB", *first.image.size, 0, 0, 0))
        if self.plays != 1:
            repetitions = 0 if self.plays == ENDLESS else self.plays - 1
            self.file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", repetitions, 0))
        if first.settings is not None:
            comment = gif_comment(first.settings)
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


class TiffWriter:
    """TIFF 6.0: pages, each with its own size, profile and EXIF, of which the first has the settings."""

    def __init__(self, file: IO[bytes], sequence: FrameSequence, options: SaveOptions, notes: Notes) -> None:
        self.file, self.options, self.notes, self.pointer = file, options, notes, 0

    def add(self, frame: OutputFrame) -> None:
        is_first = self.pointer == 0
        arguments = _metadata("TIFF", frame if is_first else replace(frame, settings=None), self.options, self.notes)
        samples = np.asarray(frame.image) if frame.deep is None else frame.deep.samples
        page = self.file.seek(0, os.SEEK_END)
        if page % 2:  # directories begin at an even place
            self.file.write(b"\0")
        page = page + page % 2 or 8  # the first comes after the header
        write_tiff(self.file, samples, arguments.get("exif"), frame.image.info.get("icc_profile"))
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


ANIMATIONS = {"PNG": ApngWriter, "WEBP": WebPWriter, "GIF": GifWriter}


def _metadata(image_format: str, frame: OutputFrame, options: SaveOptions, notes: Notes) -> dict[str, Any]:
    return metadata_arguments(image_format, written_metadata(frame.metadata, options), frame.settings, None, notes)


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
