"""What of an input's EXIF is true of the result: fields that describe the input's pixels are dropped or scaled."""

from __future__ import annotations

from PIL import ExifTags

from seesr.images.metadata.ifd import ASCII, SHORT, UNDEFINED, Exif, Field, Fields
from seesr.images.sizes import Size

XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG = 700, 33723, 34377
"""Fields of a TIFF that hold other metadata."""
SUBJECT_AREA = 0x9214
"""Missing in Pillow's `ExifTags.Base`."""
X_RESOLUTION, Y_RESOLUTION = ExifTags.Base.XResolution, ExifTags.Base.YResolution
RESOLUTION_UNIT, INCH, CENTIMETRE = ExifTags.Base.ResolutionUnit, 2, 3
FOCAL_X, FOCAL_Y = ExifTags.Base.FocalPlaneXResolution, ExifTags.Base.FocalPlaneYResolution
"""Pixels of the picture an inch, or another unit, of the sensor."""

FIRST_DNG_TAG = 0xC612
"""From here on the tags of the base directory describe a camera's raw file, or hold offsets into it."""
KEPT_DNG = {*(0xC614, 0xC615, 0xC62F, 0xC630, 0xC68B, 0xC6D2, 0xC6D3, 0xC763, 0xC764, 0xC772, 0xC789, 0xC7A1)}
"""But for these, which name camera, lens, title and film."""
PIXEL_TAGS = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281),
    *(284, 288, 289, 290, 291, 292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330),
    *(332, 334, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, *range(512, 533)),
}
"""Layout, colours and orientation of the input's pixels (TIFF 6.0), which the result has its own of."""
DROPPED_BASE = PIXEL_TAGS | {
    *(ExifTags.Base.Software, XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG, ExifTags.Base.InterColorProfile),
    *(33550, 33922, 34264, 34735, 34736, 34737),  # GeoTIFF ties coordinates to the input's pixels
    *(37724, 0xEA1C, 0xEA1D),  # Photoshop's layers, Microsoft's padding and offset
}
DROPPED_EXIF = {
    ExifTags.Base.ComponentsConfiguration,
    ExifTags.Base.CompressedBitsPerPixel,
    ExifTags.Base.MakerNote,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
    ExifTags.Base.SubjectLocation,
    SUBJECT_AREA,
    *(0xEA1C, 0xEA1D),
}
"""Fields of the Exif directory that are wrong for the result, or that hold offsets into the input's file."""
OFFSET_TYPE = 13

Resolution = tuple[float, float]
"""Dots an inch, horizontally and vertically."""


def keep_what_stays_true(exif: Exif, is_transposed: bool) -> None:
    """Drops in place what describes the input's file or is wrong of its upright picture.

    Args:
        is_transposed: turning it upright exchanged width and height.
    """
    exif.base = {
        tag: item
        for tag, item in exif.base.items()
        if tag not in DROPPED_BASE and (tag < FIRST_DNG_TAG or tag in KEPT_DNG) and item.type != OFFSET_TYPE
    }
    exif.exif = {tag: item for tag, item in exif.exif.items() if tag not in DROPPED_EXIF and item.type != OFFSET_TYPE}
    if is_transposed:
        across, down = exif.exif.pop(FOCAL_X, None), exif.exif.pop(FOCAL_Y, None)
        exif.exif |= {tag: item for tag, item in ((FOCAL_X, down), (FOCAL_Y, across)) if item}


def scale_focal_plane(exif: Exif, before: Size, after: Size) -> None:
    """Multiplies the resolution on the sensor in place, as the picture grows from `before` to `after`."""
    for tag, axis in ((FOCAL_X, 0), (FOCAL_Y, 1)):
        if value := exif.number(exif.exif.get(tag)):
            exif.exif[tag] = exif.rational(value * after[axis] / before[axis])


def resolution(exif: Exif) -> Resolution | None:
    """Dots an inch as the base directory gives them; None where it does not."""
    unit = exif.number(exif.base.get(RESOLUTION_UNIT)) or INCH
    across, down = exif.number(exif.base.get(X_RESOLUTION)), exif.number(exif.base.get(Y_RESOLUTION))
    if across is None or unit not in (INCH, CENTIMETRE):
        return None
    inches = 2.54 if unit == CENTIMETRE else 1.0
    return float(across) * inches, float(across if down is None else down) * inches


def set_resolution(exif: Exif, dots_per_inch: Resolution) -> None:
    """Replaces the resolution in place."""
    exif.base[X_RESOLUTION], exif.base[Y_RESOLUTION] = (exif.rational(value) for value in dots_per_inch)
    exif.base[RESOLUTION_UNIT] = exif.numbers(SHORT, [INCH])


def ascii_field(text: str) -> Field:
    """A field of text; what is not ASCII becomes UTF-8, as most programs write and read it."""
    return Field(ASCII, text.encode("utf-8", "replace") + b"\0")


def user_comment(prefix: bytes, content: bytes) -> Field:
    """A user comment: `prefix` is its character code of 8 bytes (EXIF 2.32, section 4.6.5)."""
    return Field(UNDEFINED, prefix + content)


def shorten(exif: Exif, limit: int) -> list[str]:
    """Drops the longest fields in place until all has at most `limit` bytes; returns their names."""
    names = []
    while len(exif.content()) > limit:
        directories: list[Fields] = [exif.base, exif.exif, exif.gps]
        longest = max(directories, key=lambda fields: max((len(item.content) for item in fields.values()), default=0))
        tag = max(longest, key=lambda tag: len(longest[tag].content))
        del longest[tag]
        names.append(ExifTags.GPSTAGS.get(tag, str(tag)) if longest is exif.gps else ExifTags.TAGS.get(tag, str(tag)))
    return names
