"""ICC profiles: what the numbers of a picture mean, in which space the networks see it, and profiles that are built.

The networks know sRGB. Pictures in a wider space stay in it: their numbers look like those of sRGB, a little less
saturated, and nothing outside sRGB is clipped. Only where the numbers are nothing like sRGB's, as those of linear light,
they are converted.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from seesr.errors import first_line
from seesr.notes import Notes

Chromaticity = tuple[float, float]
"""CIE x and y."""
D65: Chromaticity = (0.3127, 0.3290)
D50_XYZ = (0.9642, 1.0, 0.8249)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
GAMUT_SLACK = 0.02
"""How far outside 0 to 1 a primary may be in linear sRGB, and count as sRGB's."""
PERCEPTUAL_GREY = (100, 165)
"""The range in sRGB of the middle grey 128 of a space whose numbers may be seen as those of sRGB: gammas from 1.6 to 2.8."""
CURVE_SAMPLES = 1024


@dataclass(frozen=True)
class Primaries:
    """The corners and the white of a space."""

    red: Chromaticity
    green: Chromaticity
    blue: Chromaticity
    white: Chromaticity = D65


SRGB = Primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BT2020 = Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
ADOBE_RGB = Primaries((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_GAMMA = 563 / 256


@dataclass(frozen=True)
class Colours:
    """A picture in the space that the networks see, and how it goes back."""

    rgb: Image.Image
    working: bytes | None
    """The profile of the numbers of `rgb`; None is sRGB."""
    profile: bytes | None
    """The profile that the output gets; None is sRGB."""
    source: bytes | None
    """The profile of the numbers before; `working` where they were not converted."""


def to_working_space(image: Image.Image, profile: bytes | None, notes: Notes, keep: bool = False) -> Colours:
    """A picture (RGB, L or CMYK) with this profile, in RGB that the networks may see.

    Args:
        keep: leave the numbers of RGB as they are, whatever their profile says.
    """
    if not profile:
        return Colours(image.convert("RGB"), None, None, None)
    try:
        source = _open(profile)
        space = _core(source).xcolor_space.strip()
        is_grey_in_colour = image.mode == "L" and space == "RGB"
        if is_grey_in_colour:  # three equal numbers are meant
            image = image.convert("RGB")
        # Also where the picture stays in its space: it fails where the profile does not fit.
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert converted is not None  # it is None only in place
    except (ImageCms.PyCMSError, OSError) as error:
        notes.add(f"the input's colour profile cannot be used and was ignored ({first_line(error)})")
        return Colours(image.convert("RGB"), None, None, None)
    is_perceptual = _is_perceptual(source, image.mode)
    if image.mode == "L" and is_perceptual:
        return Colours(image.convert("RGB"), profile, profile, profile)
    if image.mode != "RGB" or not _converts_back(source):
        notes.add("the input's colours were converted to sRGB and stay in sRGB")
        return Colours(converted, None, None, profile)
    if keep:
        return Colours(image, profile, profile, profile)
    if not is_wide(source):
        # A file of L cannot have it.
        return Colours(converted, None, None if is_grey_in_colour else profile, profile)
    if is_perceptual:
        return Colours(image, profile, profile, profile)
    if not _core(source).is_matrix_shaper:
        return Colours(converted, None, profile, profile)
    colorants = [np.array(getattr(_core(source), f"{name}_colorant")[0]) for name in ("red", "green", "blue")]
    working = _matrix_profile(np.stack(colorants, axis=1), _srgb_curve(), "the input's primaries, sRGB's curve")
    return Colours(convert(image, profile, working), working, profile, profile)


def convert(image: Image.Image, source: bytes | None, target: bytes | None) -> Image.Image:
    """An RGB picture from one profile to another; None is sRGB. A grey profile takes and gives L."""
    if source == target:
        return image
    spaces = [ImageCms.createProfile("sRGB") if profile is None else _open(profile) for profile in (source, target)]
    grey = [isinstance(space, ImageCms.ImageCmsProfile) and _is_grey(space) for space in spaces]
    before = image.convert("L") if grey[0] else image
    converted = ImageCms.profileToProfile(before, spaces[0], spaces[1], outputMode="L" if grey[1] else "RGB")
    assert converted is not None  # it is None only in place
    return converted


def to_srgb(image: Image.Image, notes: Notes) -> tuple[Image.Image, bytes | None]:
    """(the image in sRGB, its ICC profile); the profile is None if there is no usable one, or if it cannot convert back."""
    base = image if image.mode in ("RGB", "L", "CMYK") else image.convert("L" if image.mode in ("1", "LA") else "RGB")
    colours = to_working_space(base, image.info.get("icc_profile"), notes)
    return convert(colours.rgb, colours.working, None), colours.profile


def is_wide(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether an RGB profile has colours outside sRGB, or does not say by its primaries."""
    colorants = [getattr(_core(profile), f"{name}_colorant") for name in ("red", "green", "blue")]
    if not _core(profile).is_matrix_shaper or None in colorants:
        return True
    linear = np.linalg.inv(to_d50_xyz(SRGB)) @ np.stack([np.array(colorant[0]) for colorant in colorants], axis=1)
    return bool(linear.min() < -GAMUT_SLACK or linear.max() > 1 + GAMUT_SLACK)


def build_profile(primaries: Primaries, gamma: float | None, name: str) -> bytes:
    """A matrix profile of version 2; `gamma` None is sRGB's curve."""
    curve = _srgb_curve() if gamma is None else np.linspace(0, 1, CURVE_SAMPLES) ** gamma
    return _matrix_profile(to_d50_xyz(primaries), curve, name)


def _matrix_profile(colorants: np.ndarray, curve: np.ndarray, name: str) -> bytes:
    """The bytes of a profile (ICC.1:2001-04): `colorants` is XYZ at D50 of red, green and blue in its columns."""

    def xyz(values: np.ndarray | tuple[float, ...]) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)

    samples = (curve.clip(0, 1) * 65535).round().astype(">u2")
    ascii_name = name.encode("ascii", "replace") + b"\0"
    shared = b"curv" + struct.pack(">II", 0, len(samples)) + samples.tobytes()
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(ascii_name)) + ascii_name + bytes(78),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": xyz(D50_XYZ),
        b"rXYZ": xyz(colorants[:, 0]),
        b"gXYZ": xyz(colorants[:, 1]),
        b"bXYZ": xyz(colorants[:, 2]),
        b"rTRC": shared,
    }
    start, body, entries = 128 + 4 + 12 * (len(tags) + 2), b"", b""
    for key, content in tags.items():
        content += bytes(-len(content) % 4)
        entry = struct.pack(">II", start + len(body), len(content))
        entries += b"".join(one + entry for one in ((b"rTRC", b"gTRC", b"bTRC") if key == b"rTRC" else (key,)))
        body += content
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    head = head.ljust(68, b"\0") + xyz(D50_XYZ)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags) + 2) + entries + body


def to_d50_xyz(primaries: Primaries) -> np.ndarray:
    """The matrix from linear RGB to XYZ, adapted to D50 by Bradford (Lindbloom; ICC.1:2001-04, annex E)."""

    def at(xy: Chromaticity) -> np.ndarray:
        return np.array([xy[0] / xy[1], 1, (1 - xy[0] - xy[1]) / xy[1]])

    corners = np.stack([at(primaries.red), at(primaries.green), at(primaries.blue)], axis=1)
    white = at(primaries.white)
    to_xyz = corners * np.linalg.solve(corners, white)
    scale = (BRADFORD @ np.array(D50_XYZ)) / (BRADFORD @ white)
    return np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD @ to_xyz


def _srgb_curve() -> np.ndarray:
    """sRGB's numbers to linear light."""
    values = np.linspace(0, 1, CURVE_SAMPLES)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def is_grey_profile(profile: bytes) -> bool:
    """Whether it is one of grey, such as a scanner's."""
    return _is_grey(_open(profile))


def _open(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def _core(profile: ImageCms.ImageCmsProfile) -> Any:
    """LittleCMS's view of a profile, whose type Pillow states too widely."""
    return profile.profile


def _is_grey(profile: ImageCms.ImageCmsProfile) -> bool:
    return _core(profile).xcolor_space.strip() == "GRAY"


def _is_perceptual(profile: ImageCms.ImageCmsProfile, mode: str) -> bool:
    """Whether the numbers of a space may be seen as those of sRGB."""
    if mode not in ("L", "RGB"):
        return False
    middle = Image.new(mode, (1, 1), 128 if mode == "L" else (128, 128, 128))
    seen = ImageCms.profileToProfile(middle, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert seen is not None  # it is None only in place
    low, high = PERCEPTUAL_GREY
    return all(low <= value <= high for value in seen.tobytes())


def _converts_back(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether colours can be converted to it, too."""
    try:
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), profile, "RGB", "RGB")
    except ImageCms.PyCMSError:
        return False
    return True
