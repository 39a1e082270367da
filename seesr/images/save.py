"""Writes image files atomically: on an error the file that was there before stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from seesr.errors import OutputError
from seesr.files import atomic_write
from seesr.images.icc import to_srgb
from seesr.images.metadata import metadata_arguments
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
}
"""Pillow's names of the formats that can be written, by suffix."""
NO_ALPHA, NO_PROFILE = ("JPEG", "BMP"), ("BMP",)
"""Formats without transparency, which becomes white, and formats without a colour profile, whose colours become sRGB."""
CHROMA_SUBSAMPLED, FULL_CHROMA_QUALITY = ("JPEG", "AVIF"), 90
"""Formats that subsample chroma to a quarter by default, and the lowest quality at which it is kept in full (4:4:4)."""


def pillow_format(path: Path) -> str:
    """Pillow's name of the format that belongs to the suffix of `path`.

    Raises:
        OutputError: the suffix is unknown.
    """
    try:
        return PILLOW_FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path} has no known picture suffix; use one of {', '.join(PILLOW_FORMATS)}.") from None


def save(
    image: Image.Image,
    path: Path,
    options: SaveOptions | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
    infotext: str | None = None,
) -> None:
    """Writes `image` to `path`, whose suffix determines the format.

    Args:
        options: quality, and whether the EXIF in `image.info` is written; its ICC profile always is.
        settings: the settings that made the picture, which are written into the file.
        name: the name of the file in error messages; by default its path.
        infotext: the settings of a generated picture as other programs read them; it also marks the picture as synthetic.

    Raises:
        OutputError: the suffix is unknown, or the file cannot be written. A file that was there before stays.
    """
    with save_on_success(image, path, options, settings, name, infotext):
        pass


@contextmanager
def save_on_success(
    image: Image.Image,
    path: Path,
    options: SaveOptions | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
    infotext: str | None = None,
) -> Iterator[None]:
    """Like `save`, but moves the file into place only after the body of the `with` statement has succeeded."""
    image_format, options, name = pillow_format(path), options or SaveOptions(), name or str(path)
    if image_format in NO_ALPHA and image.mode == "RGBA":
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        flat.info = image.info
        image = flat
    elif image.mode == "LA" and image_format in NO_ALPHA:
        flat = Image.new("L", image.size, 255)
        flat.paste(image.getchannel("L"), mask=image.getchannel("A"))
        flat.info = image.info
        image = flat
    if image_format in NO_PROFILE:
        image, _ = to_srgb(image, Notes())
    metadata = metadata_arguments(image_format, image.info.get("exif") if options.metadata else None, settings, infotext)
    full_chroma = image_format in CHROMA_SUBSAMPLED and options.quality >= FULL_CHROMA_QUALITY
    chroma = {"subsampling": "4:4:4"} if full_chroma else {}
    profile = image.info.get("icc_profile")
    try:
        with atomic_write(path) as temporary:
            image.save(temporary, format=image_format, quality=options.quality, icc_profile=profile, **metadata, **chroma)
            yield
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {error.strerror or error}.") from error
    except (ValueError, RuntimeError) as error:  # WebP and AVIF raise these where a side is too long for the format
        raise OutputError(f"{name} cannot be written as {image_format} of {image.width}x{image.height}: {error}.") from error
