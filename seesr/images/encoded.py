"""Encoded pictures: what is taken as one, the limits that are checked before it is decoded, and how Pillow opens it."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import error as struct_error
from typing import Protocol
from zlib import error as zlib_error

import numpy as np
import pillow_heif
from PIL import Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from seesr.errors import InputError, first_line
from seesr.images.jpeg_xl import JXL_SIGNATURES
from seesr.images.rare_files import needs_libtiff, silent_libtiff
from seesr.options import Limits

READABLE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "HEIF")
"""Pillow's other plug-ins are not used: some run external programs, or change the size while they decode."""
PICTURE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff"),
    *(".bmp", ".dib", ".gif", ".avif", ".heic", ".heif"),
}
"""Suffixes of the files that are read from a folder; a file that the user names is read whatever its suffix."""
DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(RuntimeError, ZeroDivisionError, struct_error, zlib_error, Image.DecompressionBombError),
)
"""What Pillow's decoders raise on damaged files: each format raises other errors."""

MAX_TEXT = 64 << 20
"""Bytes to which a text or a profile in a PNG may unpack; Pillow allows 1 MiB, and profiles of 2 MB are in use."""

PILLOW_NAMES = (
    *("icc_profile", "transparency", "gamma", "chromaticity", "srgb", "dpi", "aspect", "exif", "xmp", "photoshop"),
    *("background", "duration", "loop", "bbox", "blend", "disposal", "default_image", "interlace", "orientation"),
)
"""Under these names `Image.info` holds what is no text; a PNG's texts stand there too, under any name."""
EXIF_BEGINNING = b"Exif\0\0"
"""With which Pillow begins the EXIF of a PNG's own chunk."""

_PILLOW_LOCK = threading.RLock()


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file, and its name in error messages."""

    content: bytes
    name: str = "the data"

    @classmethod
    def read(cls, path: Path, limits: Limits, name: str | None = None) -> EncodedImage:
        """Reads a file.

        Raises:
            InputError: the file cannot be read, or is larger than the limit.
        """
        name = name or str(path)
        try:
            check_file_size(path.stat().st_size, limits, name)
            with path.open("rb") as file:  # of a pipe, one byte beyond the limit, which `_decode` refuses
                return cls(file.read(limits.input_bytes + 1), name)
        except FileNotFoundError:
            raise InputError(f"{name} does not exist.") from None
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror or error}.") from error


class Readable(Protocol):
    """An open file; of text it is refused."""

    def read(self, size: int = -1, /) -> bytes | str: ...


ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | EncodedImage | Image.Image | np.ndarray
ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def encoded(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | EncodedImage, limits: Limits
) -> EncodedImage:
    """The content of a source.

    Raises:
        InputError: it is an address, cannot be read, or is larger than the limit.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        source = EncodedImage(bytes(source))
    elif isinstance(source, str | os.PathLike):
        if ADDRESS.match(str(source)):
            raise InputError(f"{source} is an address; give a file, or its bytes.")
        source = EncodedImage.read(Path(source), limits)
    elif not isinstance(source, EncodedImage):
        content = source.read(limits.input_bytes + 1)
        if not isinstance(content, bytes):
            raise InputError(f"the open file gives {type(content).__name__}; open it in binary mode.")
        source = EncodedImage(content, "the file")
    return source


def load_image(source: EncodedImage, limits: Limits) -> Image.Image:
    """A file as Pillow loads it, for what stands in it beside its pixels.

    Raises:
        InputError: it is not a picture, is damaged, or exceeds a limit.
    """
    try:
        image = open_image(source.content)
        check_dimensions(image.size, limits, source.name)
        with pillow_settings():
            image.load()  # a PNG's text may stand at its end
    except UnidentifiedImageError:
        raise InputError(f"{source.name} is not a picture in a known format.") from None
    except DECODE_ERRORS as error:
        raise damaged(source.name, error) from error
    return image


def open_image(content: bytes) -> Image.Image:
    """The picture, not loaded yet."""
    pillow_heif.register_heif_opener()
    formats = (*READABLE_FORMATS, "JXL") if content.startswith(JXL_SIGNATURES) else READABLE_FORMATS
    with pillow_settings():
        image = Image.open(io.BytesIO(content), formats=formats)
    if needs_libtiff(image):
        with pillow_settings(use_libtiff=True):
            image = Image.open(io.BytesIO(content), formats=READABLE_FORMATS)
    forget_misleading_texts(image)
    return image


def forget_misleading_texts(image: Image.Image) -> None:
    """Removes from `image.info` texts of a PNG that have the name of something else; `image.text` keeps them."""
    for name in PILLOW_NAMES:
        if isinstance(image.info.get(name), str):
            del image.info[name]
    # Of this name Pillow leaves the text as bytes. (`image.text` would decode the picture.)
    if image.format == "PNG" and not image.info.get("exif", EXIF_BEGINNING).startswith(EXIF_BEGINNING):
        del image.info["exif"]


def open_again(content: bytes, image: Image.Image) -> Image.Image:
    """The same page of the same file, not loaded yet."""
    again = open_image(content)
    again.seek(image.tell())
    return again


@contextmanager
def pillow_settings(use_libtiff: bool = False) -> Iterator[None]:
    """Pillow's own limits off, for `Limits.input_pixels` is checked instead, before any pixel is decoded; libtiff silent.

    Args:
        use_libtiff: decode TIFF files by libtiff that Pillow would decode by itself.
    """
    with _PILLOW_LOCK:
        before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, TiffImagePlugin.READ_LIBTIFF
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MAX_TEXT
        TiffImagePlugin.READ_LIBTIFF = use_libtiff
        try:
            with silent_libtiff():
                yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, TiffImagePlugin.READ_LIBTIFF = before


def damaged(name: str, error: BaseException) -> InputError:
    """The error that says so."""
    return InputError(f"{name} is damaged or cut short and cannot be decoded ({first_line(error)}).")


def check_file_size(count: int, limits: Limits, name: str) -> None:
    """Raises InputError if a file of `count` bytes is too large."""
    if count > limits.input_bytes:
        raise InputError(f"{name} has {count:,} bytes; at most {limits.input_bytes:,} are allowed (SEESR_INPUT_BYTES).")


def check_dimensions(size: tuple[int, int], limits: Limits, name: str) -> None:
    """Raises InputError if a picture of this size has no pixels, or too many."""
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"{name} is {width}x{height}: it has no pixels.")
    if width * height > limits.input_pixels:
        raise InputError(
            f"{name} is {width}x{height}, {width * height:,} pixels; at most {limits.input_pixels:,} are allowed. "
            "Make it smaller first, or raise SEESR_INPUT_PIXELS."
        )
