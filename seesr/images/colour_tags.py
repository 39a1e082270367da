"""Colours that a file states otherwise than by an ICC profile: EXIF's Adobe RGB, code points, PNG's gamma.

Code points, of HEIC, AVIF and PNG, are those of ITU-T H.273. High dynamic range is reduced to standard range: PQ and HLG
(ITU-R BT.2100) are tone-mapped by the curve of ITU-R BT.2390, with white at 203 cd/m2 (ITU-R BT.2408).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from seesr.images.boxes import boxes
from seesr.images.icc import ADOBE_GAMMA, ADOBE_RGB, BT2020, DISPLAY_P3, SRGB, Primaries, build_profile
from seesr.images.png import chunks
from seesr.notes import Notes

UNCALIBRATED, ADOBE_COLOR_SPACE, ADOBE_INTEROPERABILITY = 65535, 2, "R03"
"""EXIF's ColorSpace of all but sRGB, the one that some cameras write for Adobe RGB, and DCF's mark of Adobe RGB."""
FILE_GAMMA = 1 / 2.2
"""PNG's gAMA of what is sRGB for all practical purposes."""
CODE_PRIMARIES = {
    1: SRGB,
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: BT2020,
    11: Primaries(DISPLAY_P3.red, DISPLAY_P3.green, DISPLAY_P3.blue, (0.314, 0.351)),
    12: DISPLAY_P3,
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
CODE_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
"""Of the other transfers, video's (1, 6, 14, 15) are shown as sRGB's (13), as browsers show them."""
PQ, HLG, UNSPECIFIED = 16, 18, 2
PQ_PEAK, HLG_PEAK, SDR_WHITE = 10_000.0, 1_000.0, 203.0
"""cd/m2."""
PQ_M1, PQ_M2, PQ_C1, PQ_C2, PQ_C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
HLG_A, HLG_B, HLG_C, HLG_GAMMA = 0.17883277, 0.28466892, 0.55991073, 1.2
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
STRIP_ROWS = 256
GAIN_MAPS = (b"hdrgainmap", b"hdrgm:Version", b"urn:iso:std:iso:ts:21496")
CONTAINERS = (b"meta", b"iprp", b"ipco")


@dataclass(frozen=True)
class CodePoints:
    """Numbers of ITU-T H.273."""

    primaries: int
    transfer: int


@dataclass(frozen=True)
class StatedColours:
    """What the numbers of a picture mean."""

    profile: bytes | None = None
    """ICC profile; None is sRGB."""
    transfer: int | None = None
    """PQ or HLG; `tone_map` makes numbers of it that fit `profile`."""


def stated_colours(image: Image.Image, content: bytes, notes: Notes) -> StatedColours:
    """What a file says of its colours, in an ICC profile or otherwise; `content` is the file of `image`, which is loaded."""
    if any(mark in content for mark in GAIN_MAPS):
        notes.add("the input's gain map, which screens of high dynamic range use, is not kept")
    profile = image.info.get("icc_profile") or None
    if image.mode not in ("RGB", "RGBA", "P", "PA"):
        return StatedColours(profile)
    points = _png_code_points(content) if image.format == "PNG" else None  # it wins over an ICC profile
    if profile is None and image.format in ("HEIF", "AVIF"):
        points = _heif_code_points(content)
    if points is not None:
        return _of_code_points(points, notes)
    if profile is None and image.format == "PNG":
        profile = _profile_of_png_gamma(image)
    if profile is None and _is_adobe_rgb(image):
        profile = build_profile(ADOBE_RGB, ADOBE_GAMMA, "Adobe RGB (1998)")
    return StatedColours(profile)


def heif_bits(content: bytes) -> int:
    """Bits of a channel of a HEIC or AVIF; 8 where it does not say."""
    depths = [bits for kind, body in _properties(content) if kind == b"pixi" for bits in body[5 : 5 + body[4]]]
    return depths[0] if depths else 8


def _of_code_points(points: CodePoints, notes: Notes) -> StatedColours:
    primaries, gamma = CODE_PRIMARIES.get(points.primaries), CODE_GAMMAS.get(points.transfer)
    if primaries is None and points.primaries != UNSPECIFIED:
        notes.add(f"the input's colour primaries {points.primaries} are not known and were taken as sRGB's")
    primaries = primaries or SRGB
    is_hdr = points.transfer in (PQ, HLG)
    if is_hdr:
        name = "PQ" if points.transfer == PQ else "HLG"
        notes.add(f"the input is of high dynamic range ({name}) and was tone-mapped by ITU-R BT.2390, white at 203 cd/m2")
    if primaries is SRGB and gamma is None:
        return StatedColours(None, points.transfer if is_hdr else None)
    profile = build_profile(primaries, gamma, f"H.273 primaries {points.primaries}")
    return StatedColours(profile, points.transfer if is_hdr else None)


def _png_code_points(content: bytes) -> CodePoints | None:
    """Those of the chunk cICP."""
    for chunk in chunks(content):
        kind, data = chunk[4:8], chunk[8:-4]
        if kind == b"cICP" and len(data) == 4:
            return CodePoints(data[0], data[1])
        if kind == b"IDAT":
            return None
    return None


def _heif_code_points(content: bytes) -> CodePoints | None:
    """Those of the first box colr with code points."""
    for kind, body in _properties(content):
        if kind == b"colr" and body[:4] == b"nclx" and len(body) >= 8:
            return CodePoints(*struct.unpack(">2H", body[4:8]))
    return None


def _properties(content: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of the boxes that hold the properties of a HEIC's or AVIF's pictures."""
    for kind, body, end in boxes(content, start, stop):
        if kind in CONTAINERS:
            yield from _properties(content, body + (4 if kind == b"meta" else 0), end)
        elif kind in (b"colr", b"pixi"):
            yield kind, content[body:end]


def _profile_of_png_gamma(image: Image.Image) -> bytes | None:
    """That of gAMA and cHRM, unless they say sRGB."""
    if "srgb" in image.info:
        return None
    gamma, corners = image.info.get("gamma"), image.info.get("chromaticity")
    primaries = SRGB
    if corners and len(corners) == 8:
        white, red, green, blue = zip(corners[::2], corners[1::2], strict=True)
        # Rounded and nearly sRGB's it is sRGB's.
        given = Primaries(red, green, blue, white)
        if min(xy[1] for xy in (white, red, green, blue)) > 0 and not _is_near(given, SRGB):
            primaries = given
    is_plain = not gamma or abs(gamma - FILE_GAMMA) < 0.01
    if primaries is SRGB and is_plain:
        return None
    try:
        return build_profile(primaries, None if is_plain or not gamma else 1 / gamma, "PNG gAMA and cHRM")
    except np.linalg.LinAlgError:  # corners on one line
        return None


def _is_near(one: Primaries, other: Primaries) -> bool:
    pairs = zip((one.red, one.green, one.blue, one.white), (other.red, other.green, other.blue, other.white), strict=True)
    return all(abs(a - b) < 0.005 for first, second in pairs for a, b in zip(first, second, strict=True))


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether a camera marked its picture as Adobe RGB (DCF 2.0)."""
    try:
        exif = image.getexif()
        color_space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = exif.get_ifd(ExifTags.IFD.Interop).get(1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return False
    mark = index.decode("ascii", "replace") if isinstance(index, bytes) else str(index)
    is_marked = color_space == UNCALIBRATED and mark.rstrip("\0 ") == ADOBE_INTEROPERABILITY
    return is_marked or color_space == ADOBE_COLOR_SPACE


def tone_map(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """RGB `(H, W, 3)` of PQ or HLG in the same primaries with sRGB's curve: uint8, or float32 in 0..1, as it was."""
    result, white = np.empty_like(pixels), 255 if pixels.dtype == np.uint8 else 1
    to_light = _pq_to_light if transfer == PQ else _hlg_to_light
    strips = [slice(first, first + STRIP_ROWS) for first in range(0, len(pixels), STRIP_ROWS)]

    def light_of(rows: slice) -> np.ndarray:
        return to_light(pixels[rows].astype(np.float32) / white)

    peak = max(SDR_WHITE, *(float(light_of(rows).max()) for rows in strips))
    for rows in strips:
        light = light_of(rows)
        brightest = light.max(axis=2, keepdims=True)
        share = np.divide(light, brightest, out=np.zeros_like(light), where=brightest > 0)
        relative = (_bt2390(brightest, peak) * share / SDR_WHITE).clip(0, 1)
        curve = np.where(relative <= 0.0031308, 12.92 * relative, 1.055 * relative ** (1 / 2.4) - 0.055)
        result[rows] = (curve * white).round() if white > 1 else curve
    return result


def _pq_to_light(signal: np.ndarray) -> np.ndarray:
    """cd/m2 of a signal from 0 to 1 (SMPTE ST 2084)."""
    root = signal ** (1 / PQ_M2)
    return PQ_PEAK * (np.maximum(root - PQ_C1, 0) / (PQ_C2 - PQ_C3 * root)) ** (1 / PQ_M1)


def _light_to_pq(light: np.ndarray | float) -> np.ndarray:
    power = (np.asarray(light) / PQ_PEAK) ** PQ_M1
    return ((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M2


def _hlg_to_light(signal: np.ndarray) -> np.ndarray:
    """cd/m2 of a signal from 0 to 1 on a screen of 1,000 cd/m2 (ITU-R BT.2100)."""
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - HLG_C) / HLG_A) + HLG_B) / 12)
    return HLG_PEAK * (scene @ LUMA_2020)[..., None] ** (HLG_GAMMA - 1) * scene


def _bt2390(light: np.ndarray, peak: float) -> np.ndarray:
    """The EETF of ITU-R BT.2390 from a `peak` of the source to white, both in cd/m2, black at 0."""
    if peak <= SDR_WHITE:
        return light
    scale = float(_light_to_pq(peak))
    most = float(_light_to_pq(SDR_WHITE)) / scale
    knee = 1.5 * most - 0.5
    signal = _light_to_pq(light) / scale
    share = ((signal - knee) / (1 - knee)).clip(0, 1)
    hermite = (2 * share**3 - 3 * share**2 + 1) * knee + (share**3 - 2 * share**2 + share) * (1 - knee)
    hermite += (-2 * share**3 + 3 * share**2) * most
    return _pq_to_light(np.where(signal < knee, signal, hermite) * scale)
