"""Puts metadata and settings where the output's format, and the programs that read it, have a place for them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags
from PIL.PngImagePlugin import PngInfo

from seesr.images.metadata import iptc, xmp
from seesr.images.metadata.exif import IPTC_TAG, XMP_TAG, ascii_field, set_resolution, shorten, user_comment
from seesr.images.metadata.ifd import BYTE, EXIF_PREFIX, UNDEFINED, Exif, Field
from seesr.images.metadata.reading import XMP_KEYWORD
from seesr.images.metadata.settings import INFOTEXT_KEY, PNG_KEY, UNICODE_PREFIX
from seesr.images.metadata.values import Metadata
from seesr.notes import Notes
from seesr.version import __version__

SOFTWARE = f"seesr {__version__}"
MAX_SEGMENT = 65_533
"""Bytes in a segment of a JPEG."""
MAX_JPEG_EXIF, MAX_JPEG_XMP = MAX_SEGMENT, MAX_SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")
MAX_JPEG_IPTC = MAX_SEGMENT - len(iptc.PHOTOSHOP_PREFIX) - 13
MAX_KEYWORD = 79
"""Bytes of a PNG keyword."""
MAX_JPEG_DENSITY = 65_535
EXIF_OF_KEYWORDS = {
    "Author": ExifTags.Base.Artist,
    "Description": ExifTags.Base.ImageDescription,
    "Copyright": ExifTags.Base.Copyright,
}
"""The EXIF fields that say what PNG's own keywords say."""
COMFYUI_TAGS = {"prompt": ExifTags.Base.Model, "workflow": ExifTags.Base.Make}
"""The EXIF fields in which ComfyUI reads its texts from WebP and AVIF, as `prompt:{...}` and `workflow:{...}`."""
COMFYUI_FORMATS = ("WEBP", "AVIF")


@dataclass
class _Parts:
    """The metadata on its way into a file of one format."""

    exif: Exif
    texts: dict[str, str]
    comment: bytes | None
    packet: bytes | None
    left_out: list[str] = field(default_factory=list)
    """What the format does not hold."""


def metadata_arguments(
    pillow_format: str, metadata: Metadata, settings: dict[str, Any] | None, infotext: str | None, notes: Notes
) -> dict[str, Any]:
    """Arguments of Pillow's `save` in `pillow_format` that write metadata and settings.

    The settings are JSON: in PNG the text `seesr`, in other formats XMP. The infotext of a generated picture is PNG's text
    `parameters`, in other formats EXIF's UserComment; XMP says then that the picture is synthetic. BMP holds only the
    resolution. `notes` gets what of the metadata the format does not hold.
    """
    parts = _Parts(
        Exif.parse(metadata.exif) if metadata.exif else Exif(), dict(metadata.texts), metadata.comment, metadata.xmp
    )
    dpi = {"dpi": metadata.dots_per_inch} if metadata.dots_per_inch else {}
    if pillow_format == "BMP":
        if metadata != metadata.anonymous():
            notes.add("BMP holds no metadata: the input's was left out")
        return dpi
    if infotext is not None:
        parts.texts[INFOTEXT_KEY] = infotext
        parts.exif.exif.pop(ExifTags.Base.UserComment, None)
    if pillow_format == "PNG":
        arguments = _png_arguments(parts, metadata.iptc, settings, infotext is not None)
    else:
        _place_texts(parts, pillow_format)
        if settings is not None:
            parts.exif.base[ExifTags.Base.Software] = ascii_field(SOFTWARE)
            parts.packet = xmp.with_settings(parts.packet, settings, infotext is not None)
        arguments = {}
    if dpi and (parts.exif.content() or pillow_format not in ("PNG", "JPEG")):
        set_resolution(parts.exif, dpi["dpi"])
    if pillow_format == "JPEG":
        arguments = _jpeg_arguments(parts, metadata.iptc)
        if dpi and max(dpi["dpi"]) <= MAX_JPEG_DENSITY:
            arguments["dpi"] = dpi["dpi"]
    elif pillow_format == "TIFF":
        arguments = {"exif": _for_tiff(parts, metadata.iptc)}
    else:
        content = parts.exif.content()
        if content and pillow_format == "JXL":
            content = bytes(4) + content.removeprefix(EXIF_PREFIX)  # the place of the TIFF header (ISO/IEC 18181-2)
        arguments |= {"exif": content} if content or pillow_format == "JXL" else {}
        if pillow_format == "PNG":
            arguments |= dpi
        else:
            arguments |= {"xmp": parts.packet} if parts.packet else {}
            parts.left_out += ["IPTC"] if metadata.iptc else []
    if parts.left_out:
        name = {"WEBP": "WebP", "JXL": "JPEG XL"}.get(pillow_format, pillow_format)
        notes.add(f"{name} has no room for all of the input's metadata; left out: {', '.join(parts.left_out)}")
    return arguments


def _png_arguments(
    parts: _Parts, of_iptc: bytes | None, settings: dict[str, Any] | None, is_synthetic: bool
) -> dict[str, Any]:
    text = PngInfo()
    if settings is not None:
        text.add_text("Software", SOFTWARE)
        text.add_itxt(PNG_KEY, json.dumps(settings))
    if parts.comment and "Comment" not in parts.texts:
        parts.texts["Comment"] = _decoded(parts.comment)
    for keyword, value in parts.texts.items():
        if len(keyword.encode("latin-1", "replace")) > MAX_KEYWORD:
            parts.left_out.append(f"the text {keyword[:20]}...")
        elif value.isascii() or (getattr(value, "lang", None) is None and _is_latin(keyword, value)):
            text.add_text(keyword, value)
        else:
            text.add_itxt(keyword, value, getattr(value, "lang", None) or "", getattr(value, "tkey", None) or "")
    if of_iptc:
        profile = iptc.to_raw_profile("iptc", iptc.to_resources(of_iptc))
        text.add_text("Raw profile type iptc", profile, zip=True)
    if is_synthetic:
        parts.packet = xmp.with_settings(parts.packet, None, is_synthetic)
    if parts.packet:
        text.add_itxt(XMP_KEYWORD, parts.packet.decode())
    return {"pnginfo": text} if text.chunks else {}


def _place_texts(parts: _Parts, pillow_format: str) -> None:
    """Moves PNG's texts and the comment into EXIF where a program would look for them there."""
    base, details = parts.exif.base, parts.exif.exif
    texts = parts.texts
    if INFOTEXT_KEY in texts and ExifTags.Base.UserComment not in details:
        content = texts.pop(INFOTEXT_KEY).encode("utf-16-be", "surrogatepass")
        details[ExifTags.Base.UserComment] = user_comment(UNICODE_PREFIX, content)
    for keyword, tag in EXIF_OF_KEYWORDS.items():
        if keyword in texts and tag not in base:
            base[tag] = ascii_field(texts.pop(keyword))
    if pillow_format in COMFYUI_FORMATS:
        for keyword, tag in COMFYUI_TAGS.items():
            if keyword in texts and tag not in base:
                base[tag] = ascii_field(f"{keyword}:{texts.pop(keyword)}")
    if parts.comment and pillow_format != "JPEG":
        if ExifTags.Base.UserComment in details:
            parts.left_out.append("the comment")
        else:
            content = _decoded(parts.comment).encode("utf-16-be", "surrogatepass")
            details[ExifTags.Base.UserComment] = user_comment(UNICODE_PREFIX, content)
    parts.left_out += [f"the text {keyword}" for keyword in texts]


def _jpeg_arguments(parts: _Parts, of_iptc: bytes | None) -> dict[str, Any]:
    """Each kind of metadata is one segment: of what is too long the longest fields are left out."""
    arguments: dict[str, Any] = {"comment": b""}  # otherwise Pillow takes one from `Image.info`
    parts.left_out += [f"EXIF {name}" for name in shorten(parts.exif, MAX_JPEG_EXIF)]
    if content := parts.exif.content():
        arguments["exif"] = content
    if parts.packet and len(parts.packet) > MAX_JPEG_XMP:
        parts.packet, names = xmp.shortened(parts.packet, MAX_JPEG_XMP)
        parts.left_out += [f"XMP {name}" for name in names]
    if parts.packet and len(parts.packet) <= MAX_JPEG_XMP:
        arguments["xmp"] = parts.packet
    if of_iptc and len(of_iptc) <= MAX_JPEG_IPTC:
        resources = iptc.PHOTOSHOP_PREFIX + iptc.to_resources(of_iptc)
        arguments["extra"] = b"\xff\xed" + struct.pack(">H", len(resources) + 2) + resources
    elif of_iptc:
        parts.left_out.append("IPTC")
    if parts.comment and len(parts.comment) <= MAX_SEGMENT:
        arguments["comment"] = parts.comment
    elif parts.comment:
        parts.left_out.append("the comment")
    return arguments


def _for_tiff(parts: _Parts, of_iptc: bytes | None) -> Exif:
    """All that a TIFF's directories hold."""
    if parts.packet:
        parts.exif.base[XMP_TAG] = Field(BYTE, parts.packet)
    if of_iptc:
        parts.exif.base[IPTC_TAG] = Field(UNDEFINED, of_iptc)
    return parts.exif


def _is_latin(*texts: str) -> bool:
    return all(ord(character) < 256 for text in texts for character in text)


def _decoded(comment: bytes) -> str:
    """A comment's text, which is UTF-8, or else taken as latin-1."""
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")
