"""The settings that made a picture, read from its file."""

from __future__ import annotations

import json
from typing import Any

from PIL import ExifTags, Image

from seesr.images.jpeg_xl import xmp_of_jpeg_xl
from seesr.images.metadata import xmp
from seesr.images.metadata.exif import XMP_TAG

ASCII_PREFIX, UNICODE_PREFIX = b"ASCII\0\0\0", b"UNICODE\0"
"""Character codes at the start of EXIF's UserComment."""
GIF_PREFIX = b"seesr "
"""What a GIF's comment begins with that holds settings."""
PNG_KEY, INFOTEXT_KEY = "seesr", "parameters"
"""PNG texts: SeeSR's settings as JSON, and A1111's infotext."""
SETTINGS_KEYS = {"version", "weights", "seed"}
"""What all settings of SeeSR hold."""


def read_infotext(image: Image.Image) -> str | None:
    """The infotext of a picture, as A1111 and compatible programs write it; None where it has none."""
    text = image.info.get(INFOTEXT_KEY)
    if isinstance(text, str):
        return text
    comment = _user_comment(image)
    if comment.startswith(UNICODE_PREFIX):
        content = comment.removeprefix(UNICODE_PREFIX)
        encoding = "utf-16" if content[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-16-be"
        return content.decode(encoding, "replace")
    return None


def read_settings(image: Image.Image) -> dict[str, Any] | None:
    """The settings that made a picture: JSON in PNG's text `seesr`, in a GIF's comment, elsewhere in XMP, in files of
    version 0.1 in EXIF's UserComment; None where it has none."""
    text = image.info.get(PNG_KEY)
    if isinstance(text, str):
        return _parsed(text)
    comment = image.info.get("comment") if image.format == "GIF" else None
    if isinstance(comment, bytes) and comment.startswith(GIF_PREFIX):
        return _parsed(comment.removeprefix(GIF_PREFIX).decode("ascii", "replace"))
    packet = _xmp(image)
    in_xmp = xmp.settings_text(packet) if packet else None
    return settings_in_comment(_user_comment(image)) if in_xmp is None else _parsed(in_xmp)


def read_xmp_texts(image: Image.Image) -> dict[str, str]:
    """The texts of a picture's XMP (`xmp.texts`); none where it has no XMP, or one that cannot be read."""
    packet = _xmp(image)
    try:
        return xmp.texts(packet) if packet else {}
    except ValueError:
        return {}


def gif_comment(settings: dict[str, Any]) -> bytes:
    """The comment of a GIF, its only metadata, with the settings as JSON."""
    return GIF_PREFIX + json.dumps(settings).encode("ascii")


def settings_in_comment(comment: bytes) -> dict[str, Any] | None:
    """The settings in a UserComment, as version 0.1 wrote them; None where it is another comment."""
    if not comment.startswith(ASCII_PREFIX):
        return None
    return _parsed(comment.removeprefix(ASCII_PREFIX).decode("ascii", "replace"))


def _xmp(image: Image.Image) -> bytes | None:
    packet = image.info.get("xmp") or image.getexif().get(XMP_TAG) or xmp_of_jpeg_xl(image)
    return packet if isinstance(packet, bytes) else None


def _user_comment(image: Image.Image) -> bytes:
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    return comment if isinstance(comment, bytes) else b""


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        settings = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None
