"""XMP (ISO 16684-1): what of it is true of the result, our settings in it, and its parts in long JPEGs put together.

Prefixes and namespaces stay as they are written: the parser takes a name as `prefix:local`, and `_uri` looks it up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat

from seesr.images.sizes import Size

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
TIFF, EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
DUBLIN_CORE, XMP = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/xap/1.0/"
PHOTOSHOP, NOTE = "http://ns.adobe.com/photoshop/1.0/", "http://ns.adobe.com/xmp/note/"
PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
REGIONS, MICROSOFT_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/", "http://ns.microsoft.com/photo/1.2/"
DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
SEESR = "https://seesr/ns/1.0/"
IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

DROPPED_NAMESPACES = {
    "http://ns.adobe.com/camera-raw-settings/1.0/",  # applied already; programs would apply them again
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.apple.com/pixeldatainfo/1.0/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/1.0/camera/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/image/",
    SEESR,
}
"""Settings of an earlier development, and what describes further pictures, sound or film in the input's file."""
DROPPED_PROPERTIES = {
    TIFF: {
        *("ImageWidth", "ImageLength", "BitsPerSample", "Compression", "PhotometricInterpretation", "Orientation"),
        *("SamplesPerPixel", "PlanarConfiguration", "YCbCrSubSampling", "YCbCrPositioning", "YCbCrCoefficients"),
        *("TransferFunction", "WhitePoint", "PrimaryChromaticities", "ReferenceBlackWhite", "NativeDigest", "Software"),
    },
    EXIF: {
        *("PixelXDimension", "PixelYDimension", "SubjectArea", "SubjectLocation", "ComponentsConfiguration"),
        *("CompressedBitsPerPixel", "MakerNote", "NativeDigest"),
    },
    DUBLIN_CORE: {"format"},
    XMP: {"Thumbnails"},
    PHOTOSHOP: {"ICCProfile", "ColorMode", "LegacyIPTCDigest"},
    NOTE: {"HasExtendedXMP"},
}
"""Properties that describe the input's file or pixels, by namespace."""
ACROSS = {
    PANORAMA: {
        *("CroppedAreaImageWidthPixels", "FullPanoWidthPixels", "CroppedAreaLeftPixels"),
        *("LargestValidInteriorRectLeft", "LargestValidInteriorRectWidth"),
    },
    TIFF: {"XResolution"},
    EXIF: {"FocalPlaneXResolution"},
}
DOWN = {
    PANORAMA: {
        *("CroppedAreaImageHeightPixels", "FullPanoHeightPixels", "CroppedAreaTopPixels"),
        *("LargestValidInteriorRectTop", "LargestValidInteriorRectHeight"),
    },
    TIFF: {"YResolution"},
    EXIF: {"FocalPlaneYResolution"},
}
"""Properties in pixels of the picture, or in pixels an inch, by namespace: they grow with it."""
MAX_BYTES, MAX_DEPTH = 16 << 20, 100
Scope = dict[str, str]
"""The namespaces by their prefixes."""


@dataclass(frozen=True)
class Property:
    """A property of the picture: an attribute of its description, or an element in it."""

    uri: str
    name: str
    description: Element
    place: str | Element
    """The attribute's name, or the element."""

    @property
    def text(self) -> str:
        return self.description.get(self.place, "") if isinstance(self.place, str) else self.place.text or ""

    def set_text(self, text: str) -> None:
        if isinstance(self.place, str):
            self.description.set(self.place, text)
        else:
            self.place.text = text

    @property
    def length(self) -> int:
        """Bytes that it takes in the packet, about."""
        return len(self.text.encode()) if isinstance(self.place, str) else len(_serialised(self.place))

    def remove(self) -> None:
        if isinstance(self.place, str):
            del self.description.attrib[self.place]
        else:
            self.description.remove(self.place)


def parse(packet: bytes) -> Element:
    """The root of a packet, names as they are written.

    Raises:
        ValueError: it is no well-formed XML in UTF-8 with RDF in it, has a document type, whose entities could unpack to
            gigabytes, or is too long or too deep.
    """
    if len(packet) > MAX_BYTES:
        raise ValueError(f"it has {len(packet):,} bytes; at most {MAX_BYTES:,} are read")
    builder, parser, depth = ElementTree.TreeBuilder(), expat.ParserCreate("utf-8"), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"its elements are nested more than {MAX_DEPTH} deep")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(packet.strip(b" \t\r\n\0"), True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error
    root = builder.close()
    for element, scope in _walk(root, {"xml": "http://www.w3.org/XML/1998/namespace"}):
        names = [element.tag, *(name for name in element.attrib if not name.startswith("xmlns"))]
        if any(name.partition(":")[0] not in scope for name in names if ":" in name):
            raise ValueError("it uses a namespace that it does not declare")
    if _rdf(root) is None:
        raise ValueError("it holds no RDF")
    return root


def upright(packet: bytes, extension: bytes | None, is_turned: bool) -> bytes:
    """A packet without what is wrong of the upright picture, and with the properties of its `extension`.

    Raises:
        ValueError: it cannot be parsed.
    """
    root = parse(packet)
    if extension:
        _adopt(root, parse(extension))
    dropped_if_turned = (PANORAMA, REGIONS, MICROSOFT_REGIONS, TIFF, EXIF)
    for item in _properties(root):
        is_wrong = item.uri in DROPPED_NAMESPACES or item.name in DROPPED_PROPERTIES.get(item.uri, ())
        if is_turned and item.uri in dropped_if_turned:
            in_pixels = item.name in ACROSS.get(item.uri, ()) or item.name in DOWN.get(item.uri, ())
            is_wrong |= in_pixels or (item.uri in (REGIONS, MICROSOFT_REGIONS) and item.name.startswith("Region"))
        if is_wrong:
            item.remove()
    return _serialised(root)


def enlarged(packet: bytes, before: Size, after: Size) -> bytes:
    """A packet whose properties in pixels have grown as the picture did from `before` to `after`."""
    root = parse(packet)
    for axis, names in enumerate((ACROSS, DOWN)):
        scale = Fraction(after[axis], before[axis])
        for item in _properties(root):
            if item.name in names.get(item.uri, ()):
                if (value := _scaled(item.text, scale)) is None:
                    item.remove()
                else:
                    item.set_text(value)
        for element, scope in _walk(root, {}):
            side = ("w", "h")[axis]
            for name in [name for name in element.attrib if _resolve(name, scope) == (DIMENSIONS, side)]:
                element.set(name, _scaled(element.attrib[name], scale) or element.attrib[name])
            if _resolve(element.tag, scope) == (DIMENSIONS, side):
                element.text = _scaled(element.text or "", scale) or element.text
    return _serialised(root)


def with_settings(packet: bytes | None, settings: dict[str, Any] | None, is_synthetic: bool) -> bytes:
    """`packet`, or a new one, with the settings as JSON, and IPTC's mark of pictures that a trained model made.

    The mark is IPTC's digital source type.
    """
    root = parse(packet) if packet else Element("x:xmpmeta", {"xmlns:x": "adobe:ns:meta/"})
    rdf = _rdf(root)
    if rdf is None:
        rdf = ElementTree.SubElement(root, "rdf:RDF", {"xmlns:rdf": RDF})
    if is_synthetic:
        for item in _properties(root):
            if (item.uri, item.name) == (IPTC_EXTENSION, "DigitalSourceType"):
                item.remove()
    about = next(
        (name for item in _descriptions(root) for key, name in item[0].attrib.items() if key.endswith(":about")), ""
    )
    attributes = {"xmlns:rdf": RDF, "rdf:about": about, "xmlns:seesr": SEESR}
    if is_synthetic:
        attributes |= {"xmlns:Iptc4xmpExt": IPTC_EXTENSION, "Iptc4xmpExt:DigitalSourceType": SYNTHETIC}
    if settings is not None:
        attributes["seesr:settings"] = json.dumps(settings)
    ElementTree.SubElement(rdf, "rdf:Description", attributes)
    return _serialised(root)


def settings_text(packet: bytes) -> str | None:
    """The settings that `with_settings` wrote, as JSON; None where the packet has none or cannot be parsed."""
    if SEESR.encode() not in packet:
        return None
    try:
        root = parse(packet)
    except ValueError:
        return None
    return next((item.text for item in _properties(root) if (item.uri, item.name) == (SEESR, "settings")), None)


def texts(packet: bytes) -> dict[str, str]:
    """The properties that are a text or a list of texts, by `prefix:name` as they are written, without our settings.

    Raises:
        ValueError: it cannot be parsed.
    """
    found = dict[str, str]()
    for item in _properties(parse(packet)):
        if item.uri == SEESR:
            continue
        if isinstance(item.place, str):
            name, parts = item.place, [item.text]
        else:
            name, parts = item.place.tag, list(item.place.itertext())
        if text := ", ".join(part.strip() for part in parts if part.strip()):
            found[name] = text
    return found


def shortened(packet: bytes, limit: int) -> tuple[bytes, list[str]]:
    """A packet of at most `limit` bytes, and the names of its longest properties, which were left out for that.

    Our settings stay.
    """
    root, names = parse(packet), []
    excess = len(packet) - limit
    by_length = [(item.length, item) for item in _properties(root) if item.uri not in (SEESR, IPTC_EXTENSION)]
    for length, item in sorted(by_length, key=lambda pair: -pair[0]):
        if excess <= 0:
            break
        item.remove()
        names.append(item.name)
        excess -= length
    return _serialised(root), names


def _scaled(text: str, scale: Fraction) -> str | None:
    """A number, decimal or rational, times `scale`; None where it is no number."""
    try:
        value = Fraction(text) * scale
    except (ValueError, ZeroDivisionError):
        return None
    if "/" in text:
        value = value.limit_denominator(10_000)
        return f"{value.numerator}/{value.denominator}"
    return str(round(value)) if "." not in text else f"{float(value):g}"


def _walk(element: Element, scope: Scope) -> Iterator[tuple[Element, Scope]]:
    """All elements with the namespaces that hold in each."""
    declared = {name[6:]: uri for name, uri in element.attrib.items() if name.startswith("xmlns:")}
    if "xmlns" in element.attrib:
        declared[""] = element.attrib["xmlns"]
    scope = scope | declared if declared else scope
    yield element, scope
    for child in element:
        yield from _walk(child, scope)


def _resolve(name: str, scope: Scope) -> tuple[str, str]:
    """The namespace and the local name of `prefix:local`."""
    prefix, _, local = name.rpartition(":")
    return scope.get(prefix, ""), local


def _rdf(root: Element) -> Element | None:
    return next((element for element, scope in _walk(root, {}) if _resolve(element.tag, scope) == (RDF, "RDF")), None)


def _descriptions(root: Element) -> list[tuple[Element, Scope]]:
    """Those of the picture: a description within a property is part of its value."""
    rdf = _rdf(root)
    children = set() if rdf is None else {id(child) for child in rdf}
    return [(element, scope) for element, scope in _walk(root, {}) if id(element) in children]


def _properties(root: Element) -> list[Property]:
    properties = []
    for description, scope in _descriptions(root):
        for name in description.attrib:
            uri, local = _resolve(name, scope)
            if uri and uri != RDF and not name.startswith("xmlns"):
                properties.append(Property(uri, local, description, name))
        for child in description:
            own = next(_walk(child, scope))[1]
            properties.append(Property(*_resolve(child.tag, own), description, child))
    return properties


def _adopt(root: Element, extension: Element) -> None:
    """Moves the descriptions of `extension` into `root`, each with the namespaces that held where it stood."""
    rdf = _rdf(root)
    for description, scope in _descriptions(extension):
        for prefix, uri in scope.items():
            description.attrib.setdefault(f"xmlns:{prefix}" if prefix else "xmlns", uri)
        if rdf is not None:
            rdf.append(description)


def _serialised(element: Element) -> bytes:
    # A carriage return would be read as a line feed.
    return ElementTree.tostring(element, "unicode").replace("\r", "&#13;").encode()
