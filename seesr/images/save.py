"""Writes pictures so that a file is either whole or not there at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from seesr.errors import OutputError
from seesr.files import whole_file
from seesr.images.metadata import save_arguments
from seesr.images.read import to_srgb
from seesr.notes import Notes
from seesr.options import SaveOptions

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
OPAQUE, PLAIN = ("JPEG", "BMP"), ("BMP",)
"""Formats without transparency: it becomes white. Those without a profile: colours become sRGB."""
SUBSAMPLED, FULL_COLOURS_FROM = ("JPEG", "AVIF"), 90
"""Formats that keep one colour for four pixels if they are not told otherwise; the quality from which on they are."""


def output_format(path: Path) -> str:
    """Pillow's name for the format that the suffix of `path` stands for.

    Raises:
        OutputError: a suffix that is not known.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path} has no known picture suffix; use one of {', '.join(FORMATS)}.") from None


def save(
    image: Image.Image,
    path: Path,
    options: SaveOptions | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Writes `image` to `path`, whose suffix decides the format.

    Args:
        options: quality, and whether the EXIF in `image.info` goes into the file; the profile always does.
        settings: what made the picture; written into the file.
        name: what errors call the file; else its path.

    Raises:
        OutputError: the folder cannot be written to, or is full; what was there before is there still.
    """
    with saved_after(image, path, options, settings, name):
        pass


@contextmanager
def saved_after(
    image: Image.Image,
    path: Path,
    options: SaveOptions | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
) -> Iterator[None]:
    """As `save`: under a temporary name first, and moved into place once the block has ended well."""
    kind, options, name = output_format(path), options or SaveOptions(), name or path
    if kind in OPAQUE and image.mode == "RGBA":
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        flat.info = image.info
        image = flat
    if kind in PLAIN:
        image, _ = to_srgb(image, Notes())
    metadata = save_arguments(kind, image.info.get("exif") if options.metadata else None, settings)
    colours = {"subsampling": "4:4:4"} if kind in SUBSAMPLED and options.quality >= FULL_COLOURS_FROM else {}
    profile = image.info.get("icc_profile")
    try:
        with whole_file(path) as temporary:
            image.save(temporary, format=kind, quality=options.quality, icc_profile=profile, **metadata, **colours)
            yield
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {error.strerror or error}.") from error
    except (ValueError, RuntimeError) as error:  # WebP's and AVIF's way to say that a side is too long for them
        raise OutputError(f"{name} cannot be written as {kind} of {image.width}x{image.height} pixels: {error}.") from error
