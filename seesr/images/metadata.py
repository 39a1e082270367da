"""What a picture file says beside its pixels: the input's EXIF, carried over, and the settings that made the output."""

from __future__ import annotations

import json
from struct import error as struct_error
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from seesr.version import __version__

KEPT_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
SUBJECT_AREA = 0x9214
"""Pillow has no name of its own for it."""
DROPPED_DETAILS = (
    ExifTags.Base.MakerNote,
    ExifTags.Base.UserComment,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
    ExifTags.Base.SubjectLocation,
    SUBJECT_AREA,
)
"""What is wrong for the result, or holds offsets into the old file."""
ASCII_COMMENT = b"ASCII\0\0\0"
PNG_KEY = "seesr"
MAX_EXIF_BYTES = 65_000
"""A JPEG segment holds 65,533."""


class _Text(str):
    """EXIF's text, which Pillow reads as latin-1, byte by byte, and writes with question marks for what is not ASCII.

    Here it is written as the bytes that it was read from, most often UTF-8.
    """

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return super().encode("latin-1", "replace")


def kept_exif(image: Image.Image) -> bytes | None:
    """The input's camera, date, author, exposure and place, ready for the output; its orientation is not among them.

    Raises:
        ValueError: the input's EXIF is damaged or too long.
    """
    try:
        source = image.getexif()
        details, place = source.get_ifd(ExifTags.IFD.Exif), source.get_ifd(ExifTags.IFD.GPSInfo)
        kept = Image.Exif()
        for tag in KEPT_TAGS:
            if tag in source:
                kept[tag] = _exact(source[tag])
        details = {tag: value for tag, value in details.items() if tag not in DROPPED_DETAILS}
        for part, values in ((ExifTags.IFD.Exif, details), (ExifTags.IFD.GPSInfo, place)):
            if values:
                kept[part] = {tag: _exact(value) for tag, value in values.items()}
        content = kept.tobytes() if len(kept) else b""
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct_error) as error:
        raise ValueError(f"its EXIF is damaged ({error})") from error
    if len(content) > MAX_EXIF_BYTES:
        raise ValueError(f"its EXIF has {len(content):,} bytes, more than a JPEG holds,")
    return content or None


def save_arguments(kind: str, exif: bytes | None, settings: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments for Pillow's `save` in format `kind` that write EXIF and settings.

    PNG carries the settings as text `seesr`, the others in EXIF's UserComment; both as JSON. BMP carries nothing.
    """
    if kind == "BMP":
        return {}
    arguments: dict[str, Any] = {}
    if kind == "PNG":
        if settings is not None:
            text = PngInfo()
            text.add_text("Software", f"seesr {__version__}")
            text.add_itxt(PNG_KEY, json.dumps(settings))
            arguments["pnginfo"] = text
    elif settings is not None:
        written = _with_comment(exif, settings)
        # What came with the input gives way where both do not fit.
        exif = written if len(written) <= MAX_EXIF_BYTES else _with_comment(None, settings)
    if exif:
        # Of bytes Pillow's TIFF would read the text again, and write it so.
        arguments["exif"] = _load(exif) if kind == "TIFF" else exif
    return arguments


def _exact(value: Any) -> Any:
    return _Text(value) if isinstance(value, str) else value


def _load(exif: bytes) -> Image.Exif:
    block = Image.Exif()
    block.load(exif)
    parts = [block.get_ifd(part) for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) if part in block]
    for part in (block, *parts):
        for tag, value in [*part.items()]:
            part[tag] = _exact(value)
    return block


def _with_comment(exif: bytes | None, settings: dict[str, Any]) -> bytes:
    block = _load(exif) if exif else Image.Exif()
    block[ExifTags.Base.Software] = f"seesr {__version__}"
    details = dict(block.get_ifd(ExifTags.IFD.Exif))
    details[ExifTags.Base.UserComment] = ASCII_COMMENT + json.dumps(settings).encode("ascii")
    block[ExifTags.IFD.Exif] = details
    return block.tobytes()


def read_settings(image: Image.Image) -> dict[str, Any] | None:
    """The settings that made a picture, as `save_arguments` wrote them; None when it carries none."""
    text = image.info.get(PNG_KEY)
    if text is None:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
        if not isinstance(comment, bytes) or not comment.startswith(ASCII_COMMENT):
            return None
        text = comment.removeprefix(ASCII_COMMENT).decode("ascii", "replace")
    try:
        settings = json.loads(text)
    except json.JSONDecodeError:
        return None
    return settings if isinstance(settings, dict) else None
