"""The frames of an animation and the pages of a file: which there are, how long each is shown, how often all are played.

Frames are Pillow's: composited, with disposal and blending applied, as a viewer shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Literal

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from seesr.errors import InputError
from seesr.images.rare_files import is_raw_tiff, is_reduced

ENDLESS = 0
"""`FrameSequence.plays` of an animation that begins again for ever."""
MAX_DENOMINATOR = 65_535
"""Of a duration in a PNG (third edition, 11.3.6.2); the other formats count hundredths or thousandths of a second."""


@dataclass(frozen=True)
class FrameSequence:
    """What a file says of its frames as a whole."""

    kind: Literal["picture", "animation", "pages"] = "picture"
    """An animation's frames have one size and a duration; each of several pages has its own size, profile and metadata."""
    numbers: Sequence[int] = (0,)
    """Pillow's number of each frame: a PNG's default picture, and reduced copies in a TIFF, are not among them."""
    plays: int = 1
    """How often an animation is played; 0 is for ever."""

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.numbers)


def find_frames(image: Image.Image, content: bytes, most: int, name: str) -> FrameSequence:
    """The frames of a picture that Pillow has opened; `content` is its file, where there is one.

    A camera's MPO, whose further frames are previews, and a raw file are one picture.

    Raises:
        InputError: there are more than `most`.
        OSError, SyntaxError, ValueError: the file is damaged.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return FrameSequence()
    if isinstance(image, TiffImageFile):
        numbers: Sequence[int] = _pages(image, most, name)
    elif image.format == "GIF" and content:
        numbers = range(_count_gif_frames(content, most))
    else:
        numbers = range(int(getattr(image, "default_image", False)), getattr(image, "n_frames", 1))
    _check_count(len(numbers), most, name)
    if image.format in ("TIFF", "HEIF"):
        return FrameSequence("pages", numbers) if len(numbers) > 1 else FrameSequence()
    return FrameSequence("animation", numbers, _plays(image))


def frame_duration(image: Image.Image) -> Fraction:
    """Seconds for which the frame that `image` has loaded is shown."""
    return Fraction(image.info.get("duration", 0) / 1000).limit_denominator(MAX_DENOMINATOR)


def _check_count(frames: int, most: int, name: str) -> None:
    if frames > most:
        raise InputError(
            f"{name} has more than {most:,} frames; take the first one alone, make it shorter, or raise SEESR_FRAMES."
        )


def _plays(image: Image.Image) -> int:
    loop = image.info.get("loop")
    if image.format == "GIF":  # counts repetitions, and without a number is played once
        return 1 if loop is None else loop and loop + 1
    return ENDLESS if loop is None else loop


def _pages(image: TiffImageFile, most: int, name: str) -> list[int]:
    """Pages that are no reduced copies and no masks; one for a camera's raw file."""
    if is_raw_tiff(image):
        return [0]
    pages, first = list[int](), image.tell()
    with suppress(EOFError):
        for page in count():
            _check_count(page, most, name)  # of a file that has a million, no more are read
            try:
                image.seek(page)
            except SyntaxError:
                if image.tell() != page:
                    raise
                # Its samples are of a kind that Pillow does not know; its tags are read.
            if not is_reduced(image):
                pages.append(page)
    image.seek(first)
    return pages


def _count_gif_frames(content: bytes, most: int) -> int:
    """Images in a GIF (GIF89a, 17 to 27), counted until there are more than `most`; Pillow would count them all."""

    def table_bytes(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    place, frames = 13 + table_bytes(content[10]), 0
    while place < len(content) and content[place] != 0x3B and frames <= most:
        if content[place] == 0x2C and place + 9 < len(content):  # image descriptor, colour table, size of codes
            frames += 1
            place += 11 + table_bytes(content[place + 9])
        elif content[place] == 0x21:  # extension
            place += 2
        else:
            place += 1  # bytes between blocks, which readers pass over
            continue
        while place < len(content) and content[place]:
            place += 1 + content[place]
        place += 1
    return frames
