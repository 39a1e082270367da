"""Reads the metadata of an input once, from wherever its format stores it, and keeps what is true of the upright picture."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from PIL import ExifTags, Image, PngImagePlugin

from seesr.images.jpeg_xl import xmp_of_jpeg_xl
from seesr.images.metadata import iptc, xmp
from seesr.images.metadata.exif import (
    IPTC_TAG,
    PHOTOSHOP_TAG,
    XMP_TAG,
    Resolution,
    keep_what_stays_true,
    resolution,
)
from seesr.images.metadata.ifd import EXIF_PREFIX, ORDERS, Exif
from seesr.images.metadata.settings import GIF_PREFIX, PNG_KEY, SETTINGS_KEYS, settings_in_comment
from seesr.images.metadata.values import Metadata
from seesr.notes import Notes

XMP_KEYWORD = "XML:com.adobe.xmp"
EXTENSION_PREFIX = b"http://ns.adobe.com/xmp/extension/\0"
"""What stands before a part of the XMP that did not fit into a JPEG's first segment (XMP specification, part 3)."""
UPRIGHT, FIRST_TRANSPOSED = 1, 5
"""Orientations: from the second on width and height are exchanged."""
MAX_DOTS_PER_INCH = 1_000_000
RESOLUTION_TAGS = (ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit)
METRES = 0.0254
"""Those of an inch."""

Content = TypeVar("Content")


def read_metadata(image: Image.Image, content: bytes, orientation: int, notes: Notes) -> Metadata:
    """What an input's file holds beside its pixels, as far as it is true of the upright picture.

    Args:
        image: loaded, not turned yet.
        content: the file; empty for an image that the user opened.
        orientation: EXIF's, by which the picture is turned upright.
        notes: gets what is damaged and was left out.
    """
    is_transposed = orientation >= FIRST_TRANSPOSED
    texts = dict(image.text) if isinstance(image, PngImagePlugin.PngImageFile) else {}
    raw = _raw_profiles(texts, notes)
    exif = _or_note("EXIF", lambda: _exif(image, content, raw.get("exif")), notes) or Exif()
    if exif.damaged:
        notes.add(f"damaged fields of the input's EXIF were left out: {exif.damaged}")
    in_tiff = {tag: item.content for tag, item in exif.base.items()}
    of_file = _resolution(image, exif)
    keep_what_stays_true(exif, is_transposed)
    for tag in RESOLUTION_TAGS:
        exif.base.pop(tag, None)
    comment = exif.exif.get(ExifTags.Base.UserComment)
    if comment and (settings_in_comment(comment.content) or {}).keys() >= SETTINGS_KEYS:
        del exif.exif[ExifTags.Base.UserComment]  # those of an earlier run by version 0.1
    text = texts.pop("Comment", None)
    for name in (PNG_KEY, "Software", XMP_KEYWORD):
        texts.pop(name, None)
    return Metadata(
        exif=exif.content() or None,
        xmp=_or_note("XMP", lambda: _xmp(image, in_tiff.get(XMP_TAG) or raw.get("xmp"), orientation, notes), notes),
        iptc=_or_note("IPTC", lambda: _iptc(in_tiff, image.info.get("photoshop"), raw.get("iptc")), notes),
        comment=_comment(image) if text is None else text.encode("utf-8", "replace"),
        texts=texts,
        dots_per_inch=(of_file[1], of_file[0]) if of_file and is_transposed else of_file,
    )


def read_metadata_of_tiff(content: bytes, notes: Notes) -> Metadata:
    """The metadata of a TIFF or a camera's raw file that Pillow cannot read; a raw file of another structure gets a note."""
    exif = _or_note("metadata", lambda: Exif.parse(content), notes) or Exif()
    orientation = int(exif.number(exif.base.get(ExifTags.Base.Orientation)) or UPRIGHT)
    in_tiff = {tag: item.content for tag, item in exif.base.items()}
    of_file = resolution(exif)
    keep_what_stays_true(exif, orientation >= FIRST_TRANSPOSED)
    for tag in RESOLUTION_TAGS:
        exif.base.pop(tag, None)
    packet = in_tiff.get(XMP_TAG)
    return Metadata(
        exif=exif.content() or None,
        xmp=_or_note("XMP", lambda: xmp.upright(packet, None, orientation != UPRIGHT) if packet else None, notes),
        iptc=_or_note("IPTC", lambda: _iptc(in_tiff, None, None), notes),
        dots_per_inch=_plausible(of_file),
    )


def _or_note(name: str, read: Callable[[], Content | None], notes: Notes) -> Content | None:
    try:
        return read()
    except (ValueError, struct.error) as error:
        notes.add(f"the input's {name} is damaged ({error}) and was left out")
        return None


def _raw_profiles(texts: dict[str, str], notes: Notes) -> dict[str, bytes]:
    """Takes ImageMagick's hexadecimal profiles out of `texts`: EXIF, IPTC and XMP by those names."""
    profiles = {}
    for keyword, name in (("exif", "exif"), ("APP1", "exif"), ("iptc", "iptc"), ("8bim", "iptc"), ("xmp", "xmp")):
        text = texts.pop(f"Raw profile type {keyword}", None)
        if text is not None and (profile := _or_note(name.upper(), lambda text=text: iptc.from_raw_profile(text), notes)):
            profiles[name] = profile
    texts.pop("Raw profile type icc", None)
    texts.pop("Raw profile type icm", None)
    return profiles


def _exif(image: Image.Image, content: bytes, raw_profile: bytes | None) -> Exif | None:
    if image.format == "TIFF" and content[:4] in ORDERS:
        return Exif.parse(content, image.tell())
    stored = image.info.get("exif") or raw_profile
    if stored is None and image.format == "TIFF":  # opened by the user, or a BigTIFF
        stored = _as_pillow_reads_it(image)
    return Exif.parse(stored) if isinstance(stored, bytes) and stored.removeprefix(EXIF_PREFIX) else None


def _as_pillow_reads_it(image: Image.Image) -> bytes:
    try:
        return image.getexif().tobytes()
    except (OSError, SyntaxError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _resolution(image: Image.Image, exif: Exif) -> Resolution | None:
    """Dots an inch of the format, else of EXIF. Pillow invents 72 for a JPEG without any."""
    is_stated = image.format in ("PNG", "BMP", "DIB") or image.info.get("jfif_unit") in (1, 2)
    stated = image.info.get("dpi") if is_stated else None
    values = resolution(exif) if stated is None else (_whole(stated[0]), _whole(stated[1]))
    return _plausible(values)


def _plausible(values: Resolution | None) -> Resolution | None:
    return values if values and all(0 < value <= MAX_DOTS_PER_INCH for value in values) else None


def _whole(dots_per_inch: float) -> float:
    """The whole number that is the same number of dots a metre, where PNG and BMP hold it as that."""
    nearest = round(dots_per_inch)
    return float(nearest if round(nearest / METRES) == round(dots_per_inch / METRES) else dots_per_inch)


def _xmp(image: Image.Image, stored: bytes | None, orientation: int, notes: Notes) -> bytes | None:
    packet = image.info.get("xmp") or stored or xmp_of_jpeg_xl(image)
    if isinstance(packet, str):
        packet = packet.encode()
    if not isinstance(packet, bytes) or not packet.strip(b" \t\r\n\0"):
        return None
    extension = _or_note("extended XMP", lambda: _extension(image), notes)
    return xmp.upright(packet, extension, orientation != UPRIGHT)


def _extension(image: Image.Image) -> bytes | None:
    """The extended XMP of a JPEG: each part with a digest of 32 characters, the length of all, and its own place."""
    start, parts = len(EXTENSION_PREFIX), {}
    total = 0
    for name, segment in getattr(image, "applist", ()):
        if name == "APP1" and segment.startswith(EXTENSION_PREFIX):
            total, place = struct.unpack_from(">LL", segment, start + 32)
            parts[place] = segment[start + 40 :]
    packet = b"".join(parts[place] for place in sorted(parts))
    if len(packet) != total:
        raise ValueError(f"{len(packet):,} of {total:,} bytes are there")
    return packet or None


def _iptc(in_tiff: dict[int, bytes], photoshop: object, raw_profile: bytes | None) -> bytes | None:
    content = in_tiff.get(IPTC_TAG) or iptc.from_resources(in_tiff.get(PHOTOSHOP_TAG, b""))
    if isinstance(photoshop, dict) and isinstance(photoshop.get(iptc.IPTC_RESOURCE), bytes):
        content = photoshop[iptc.IPTC_RESOURCE]
    if raw_profile is not None:
        raw_profile = raw_profile.removeprefix(iptc.PHOTOSHOP_PREFIX)
        content = iptc.from_resources(raw_profile) if raw_profile.startswith(b"8BIM") else raw_profile
    return iptc.checked(content) if content else None


def _comment(image: Image.Image) -> bytes | None:
    """That of a JPEG or GIF; several stand below each other."""
    comments = [content for name, content in getattr(image, "applist", ()) if name == "COM"]
    comment = b"\n".join(comments) or image.info.get("comment")
    if not isinstance(comment, bytes) or (image.format == "GIF" and comment.startswith(GIF_PREFIX)):  # of an earlier run
        return None
    return comment.rstrip(b"\0") or None
