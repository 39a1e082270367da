"""Writes image files atomically: on an error the file that was there before stays."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from seesr.errors import OptionError, OutputError
from seesr.files import atomic_write
from seesr.images.icc import to_srgb
from seesr.images.jpeg_xl import enable_jpeg_xl
from seesr.images.metadata import metadata_arguments
from seesr.images.tiff import write_tiff
from seesr.notes import Notes
from seesr.options import SaveOptions

PILLOW_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
    ".jxl": "JXL",
}
"""Pillow's names of the formats that can be written, by suffix."""
NO_ALPHA, NO_PROFILE = ("JPEG", "BMP"), ("BMP", "JXL")
"""Formats without transparency, which becomes white, and formats without a colour profile, whose colours become sRGB."""
CHROMA_SUBSAMPLED, FULL_CHROMA_QUALITY = ("JPEG", "AVIF"), 90
"""Formats that subsample chroma to a quarter by default, and the lowest quality at which it is kept in full (4:4:4)."""
LOSSLESS_QUALITY = 100
"""The quality at which JPEG XL is lossless."""


class Writable(Protocol):
    """A file that is open for writing bytes."""

    def write(self, content: bytes, /) -> object: ...


Target = str | os.PathLike[str] | Writable
"""Where a picture is written to."""


def pillow_format(path: Path, all_frames: bool = False) -> str:
    """Pillow's name of the format that belongs to the suffix of `path`; GIF only where all frames of an input are written.

    Raises:
        OutputError: the suffix is unknown, or the format needs a package that is not installed.
    """
    if path.suffix.lower() == ".gif":
        if all_frames:
            return "GIF"
        raise OutputError(f"{path}: GIF is written for animations only; take all frames (--frames all), or write PNG.")
    try:
        image_format = PILLOW_FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path} has no known picture suffix; use one of {', '.join(PILLOW_FORMATS)}.") from None
    if image_format == "JXL" and not enable_jpeg_xl():
        raise OutputError(f"{path}: JPEG XL needs the package pillow-jxl-plugin; pip install '.[jxl]'.")
    return image_format


def save(
    image: Image.Image,
    target: Target,
    options: SaveOptions | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
    infotext: str | None = None,
) -> None:
    """Writes `image` to `target`: a path, whose suffix determines the format, or an open file, where `options.format` does.

    Args:
        options: quality, and whether the EXIF in `image.info` is written; its ICC profile always is.
        settings: the settings that made the picture, which are written into the file.
        name: the name of the file in error messages; by default its path.
        infotext: the settings of a generated picture as other programs read them; it also marks the picture as synthetic.

    Raises:
        OutputError: the suffix is unknown, or the file cannot be written. A file that was there before stays.
        OptionError: of an open file the format is not given.
    """
    with save_on_success(image, target, options, settings, name, infotext):
        pass


@contextmanager
def save_on_success(
    image: Image.Image,
    target: Target,
    options: SaveOptions | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
    infotext: str | None = None,
) -> Iterator[None]:
    """Like `save`, but moves the file into place only after the body of the `with` statement has succeeded."""
    options = options or SaveOptions()
    if isinstance(target, str | os.PathLike):
        path, stream = Path(target), None
        name = name or str(path)
    elif options.format is None:
        raise OptionError("an open file has no suffix that gives its format; give it in SaveOptions(format=...).")
    else:
        path, stream = Path(f"the file.{options.format}"), target
        name = name or "the file"
    image_format = pillow_format(path)
    if image_format in NO_ALPHA and image.mode in ("LA", "RGBA"):
        opaque = image.convert(image.mode.removesuffix("A"))
        flat = Image.new(opaque.mode, image.size, "white")
        flat.paste(opaque, mask=image.getchannel("A"))
        flat.info = image.info
        image = flat
    if image_format in NO_PROFILE and image.info.get("icc_profile"):
        alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
        image, _ = to_srgb(image, Notes())
        if alpha is not None:
            image.putalpha(alpha)
    metadata = metadata_arguments(image_format, image.info.get("exif") if options.metadata else None, settings, infotext)
    full_chroma = image_format in CHROMA_SUBSAMPLED and options.quality >= FULL_CHROMA_QUALITY
    arguments: dict[str, Any] = metadata | ({"subsampling": "4:4:4"} if full_chroma else {})
    arguments |= {"quality": options.quality, "icc_profile": image.info.get("icc_profile")}
    if image_format == "JXL":
        arguments["lossless"] = options.quality >= LOSSLESS_QUALITY
    try:
        with atomic_write(path) if stream is None else _whole_write(stream) as destination:
            if image_format == "TIFF":
                _save_tiff(image, destination, arguments)
            else:
                image.save(destination, format=image_format, **arguments)
            yield
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {error.strerror or error}.") from error
    except (ValueError, RuntimeError) as error:  # WebP and AVIF raise these where a side is too long for the format
        raise OutputError(f"{name} cannot be written as {image_format} of {image.width}x{image.height}: {error}.") from error


def _save_tiff(image: Image.Image, destination: Path | io.BytesIO, arguments: dict[str, Any]) -> None:
    with destination.open("wb") if isinstance(destination, Path) else nullcontext(destination) as file:
        write_tiff(file, np.asarray(image), arguments.get("exif"), arguments["icc_profile"])


@contextmanager
def _whole_write(stream: Writable) -> Iterator[io.BytesIO]:
    """Yields a buffer that is written to `stream` if the block raises nothing; encoders seek, and a pipe cannot."""
    buffer = io.BytesIO()
    yield buffer
    stream.write(buffer.getvalue())
