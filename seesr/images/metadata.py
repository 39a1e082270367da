"""Metadata of image files: the input's EXIF that the output keeps, and the settings that made the output."""

from __future__ import annotations

import json
from struct import error as struct_error
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

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
"""Tags of the base IFD that the output keeps."""
SUBJECT_AREA = 0x9214
"""Missing in Pillow's `ExifTags.Base`."""
DROPPED_TAGS = (
    ExifTags.Base.MakerNote,
    ExifTags.Base.UserComment,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
    ExifTags.Base.SubjectLocation,
    SUBJECT_AREA,
)
"""Tags of the Exif IFD that are wrong for the output, or that hold offsets into the input file."""
ASCII_PREFIX = b"ASCII\0\0\0"
"""Character code at the start of EXIF's UserComment."""
UNICODE_PREFIX = b"UNICODE\0"
GIF_PREFIX = b"seesr "
"""What a GIF's comment begins with that holds settings."""
PNG_KEY, INFOTEXT_KEY = "seesr", "parameters"
XMP_NAMESPACE = "https://seesr/ns/1.0/"
SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MAX_EXIF_BYTES = 65_000
"""A JPEG segment holds 65,533."""


class _ExifText(str):
    """A text value of EXIF that is written back as the bytes it was read from, which are most often UTF-8.

    Pillow decodes these bytes as latin-1, and writes a question mark for each that is not ASCII.
    """

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return super().encode("latin-1", "replace")


def exif_for_output(image: Image.Image) -> bytes | None:
    """The input's camera, date, author, exposure and GPS position, without its orientation; None if it has none of them.

    Raises:
        ValueError: the input's EXIF is damaged or too long.
    """
    try:
        source = image.getexif()
        exif_ifd, gps_ifd = source.get_ifd(ExifTags.IFD.Exif), source.get_ifd(ExifTags.IFD.GPSInfo)
        kept = Image.Exif()
        for tag in KEPT_TAGS:
            if tag in source:
                kept[tag] = _preserve_bytes(source[tag])
        exif_ifd = {tag: value for tag, value in exif_ifd.items() if tag not in DROPPED_TAGS}
        for key, ifd in ((ExifTags.IFD.Exif, exif_ifd), (ExifTags.IFD.GPSInfo, gps_ifd)):
            if ifd:
                kept[key] = {tag: _preserve_bytes(value) for tag, value in ifd.items()}
        content = kept.tobytes() if len(kept) else b""
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct_error) as error:
        raise ValueError(f"its EXIF is damaged ({error})") from error
    if len(content) > MAX_EXIF_BYTES:
        raise ValueError(f"its EXIF has {len(content):,} bytes, more than a JPEG holds,")
    return content or None


def metadata_arguments(
    pillow_format: str, exif: bytes | None, settings: dict[str, Any] | None, infotext: str | None = None
) -> dict[str, Any]:
    """Arguments of Pillow's `save` in `pillow_format` that write EXIF and settings.

    The settings are JSON: in PNG the text chunk `seesr`, in other formats EXIF's UserComment. Those of a generated picture
    are also `infotext`, which is PNG's text chunk `parameters`, in other formats the UserComment; the JSON is in XMP then,
    which says that the picture is synthetic. BMP has no metadata.
    """
    if pillow_format == "BMP":
        return {}
    if infotext is not None:
        return _arguments_of_generated(pillow_format, exif, settings or {}, infotext)
    arguments: dict[str, Any] = {}
    if pillow_format == "PNG":
        if settings is not None:
            text = PngInfo()
            text.add_text("Software", f"seesr {__version__}")
            text.add_itxt(PNG_KEY, json.dumps(settings))
            arguments["pnginfo"] = text
    elif settings is not None:
        extended = _with_settings(exif, settings)
        # Where both do not fit, the input's EXIF is dropped.
        exif = extended if len(extended) <= MAX_EXIF_BYTES else _with_settings(None, settings)
    if exif:
        # Given bytes, Pillow's TIFF writer would decode the text again and lose what is not ASCII.
        arguments["exif"] = _parse(exif) if pillow_format == "TIFF" else exif
    return arguments


def _arguments_of_generated(
    pillow_format: str, exif: bytes | None, settings: dict[str, Any], infotext: str
) -> dict[str, Any]:
    if pillow_format == "PNG":
        text = PngInfo()
        text.add_text("Software", f"seesr {__version__}")
        add = text.add_text if infotext.isascii() else text.add_itxt
        add(INFOTEXT_KEY, infotext)
        text.add_itxt(PNG_KEY, json.dumps(settings))
        text.add_itxt("XML:com.adobe.xmp", xmp_packet().decode())
        return {"pnginfo": text} | ({"exif": exif} if exif else {})
    extended = _parse(exif) if exif else Image.Exif()
    extended[ExifTags.Base.Software] = f"seesr {__version__}"
    comment = UNICODE_PREFIX + infotext.encode("utf-16-be", "surrogatepass")
    extended[ExifTags.IFD.Exif] = dict(extended.get_ifd(ExifTags.IFD.Exif)) | {ExifTags.Base.UserComment: comment}
    packet = xmp_packet(settings)
    if pillow_format == "JPEG":  # whose segments hold 64 KiB: what is too long is left out, rather than the picture
        if len(extended.tobytes()) > MAX_EXIF_BYTES:
            extended = Image.Exif()
            extended[ExifTags.Base.Software] = f"seesr {__version__}"
            if len(comment) <= MAX_EXIF_BYTES - 1000:
                extended[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: comment}
        packet = packet if len(packet) <= MAX_EXIF_BYTES else xmp_packet()
    if pillow_format == "TIFF":
        extended[ExifTags.Base.XMLPacket] = packet
        return {"exif": _parse(extended.tobytes())}
    return {"exif": extended.tobytes(), "xmp": packet}


def xmp_packet(settings: dict[str, Any] | None = None) -> bytes:
    """XMP that marks a picture as made by a trained model (IPTC's digital source type), and holds its settings as JSON."""
    attributes = f' Iptc4xmpExt:DigitalSourceType="{SYNTHETIC}"'
    if settings is not None:
        attributes += f" seesr:settings={quoteattr(json.dumps(settings))}"
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:seesr="{XMP_NAMESPACE}"{attributes}/></rdf:RDF></x:xmpmeta>'
    ).encode()


def gif_comment(settings: dict[str, Any]) -> bytes:
    """The comment of a GIF, its only metadata, with the settings as JSON."""
    return GIF_PREFIX + json.dumps(settings).encode("ascii")


def read_infotext(image: Image.Image) -> str | None:
    """The infotext of a picture, as A1111 and compatible programs write it; None where it has none."""
    text = image.info.get(INFOTEXT_KEY)
    if isinstance(text, str):
        return text
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and comment.startswith(UNICODE_PREFIX):
        content = comment.removeprefix(UNICODE_PREFIX)
        encoding = "utf-16" if content[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-16-be"
        return content.decode(encoding, "replace")
    return None


def _preserve_bytes(value: Any) -> Any:
    return _ExifText(value) if isinstance(value, str) else value


def _parse(content: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(content)
    sub_ifds = [exif.get_ifd(key) for key in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) if key in exif]
    for ifd in (exif, *sub_ifds):
        for tag, value in [*ifd.items()]:
            ifd[tag] = _preserve_bytes(value)
    return exif


def _with_settings(content: bytes | None, settings: dict[str, Any]) -> bytes:
    exif = _parse(content) if content else Image.Exif()
    exif[ExifTags.Base.Software] = f"seesr {__version__}"
    exif_ifd = dict(exif.get_ifd(ExifTags.IFD.Exif))
    exif_ifd[ExifTags.Base.UserComment] = ASCII_PREFIX + json.dumps(settings).encode("ascii")
    exif[ExifTags.IFD.Exif] = exif_ifd
    return exif.tobytes()


def read_settings(image: Image.Image) -> dict[str, Any] | None:
    """The settings that made a picture, as `metadata_arguments` or `gif_comment` wrote them; None where it has none."""
    text = image.info.get(PNG_KEY)
    if text is None and image.format == "GIF" and image.info.get("comment", b"").startswith(GIF_PREFIX):
        text = image.info["comment"].removeprefix(GIF_PREFIX).decode("ascii", "replace")
    if text is None:
        text = _settings_in_xmp(image)
    if text is None:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
        if not isinstance(comment, bytes) or not comment.startswith(ASCII_PREFIX):
            return None
        text = comment.removeprefix(ASCII_PREFIX).decode("ascii", "replace")
    try:
        settings = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def _settings_in_xmp(image: Image.Image) -> str | None:
    packet = image.info.get("xmp") or image.getexif().get(ExifTags.Base.XMLPacket)
    # Entities of a foreign file could unpack to gigabytes.
    if not isinstance(packet, bytes) or XMP_NAMESPACE.encode() not in packet or b"<!" in packet:
        return None
    try:
        described = ElementTree.fromstring(packet).iter()
    except ElementTree.ParseError:
        return None
    key = f"{{{XMP_NAMESPACE}}}settings"
    return next((element.attrib[key] for element in described if key in element.attrib), None)
