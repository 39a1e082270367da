"""Bytes to a picture, safely: bounds checked before decoding, turned upright, in sRGB, alpha and profile set aside."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from struct import error as struct_error

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from seesr.errors import InputError
from seesr.options import Limits

ImageSource = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded input."""

    rgb: Image.Image
    """Mode RGB, upright, sRGB."""
    alpha: Image.Image | None = None
    """Mode L, the size of `rgb`; None when the input has no transparency."""
    profile: bytes | None = None
    """The ICC profile that the input's colours were in."""
    notes: list[str] = field(default_factory=list)
    """What was done to the input that a user would want to know."""


def open_picture(source: ImageSource, limits: Limits) -> Picture:
    """Decodes a path, the bytes of a file, a PIL image, or an array `(H, W)`, `(H, W, 3)` or `(H, W, 4)` of uint8.

    Raises:
        InputError: not a picture, damaged, or beyond a limit.
    """
    if isinstance(source, np.ndarray):
        return _to_picture(_from_array(source), limits, "the array")
    if isinstance(source, Image.Image):
        return _to_picture(source, limits, "the image")
    if isinstance(source, bytes):
        return _decode(source, limits, "the data")
    path = Path(source)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _decode(content, limits, str(path))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            f"the array is {array.dtype} of shape {array.shape}; give uint8 of shape (H, W), (H, W, 3) or (H, W, 4)."
        )
    return Image.fromarray(array)


def _decode(content: bytes, limits: Limits, name: str) -> Picture:
    if not content:
        raise InputError(f"{name} is empty (0 bytes).")
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb warning: `limits` decides that here, in _to_picture and before any pixel is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a picture in a known format (PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF).") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name} has far more than {limits.input_pixels:,} pixels; make it smaller first.") from None
    # Header parsers meet broken files in many ways; each of these is Pillow saying that this one is damaged.
    except (OSError, SyntaxError, ValueError, TypeError, struct_error, EOFError, OverflowError) as error:
        raise InputError(f"{name} is damaged or cut short and cannot be decoded ({_first_line(error)}).") from error
    return _to_picture(image, limits, name)


def _to_picture(image: Image.Image, limits: Limits, name: str) -> Picture:
    _check_size(image.size, limits, name)
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"{image.n_frames} frames, the first is used")
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, struct_error, EOFError, OverflowError) as error:
        raise InputError(f"{name} is damaged or cut short and cannot be decoded ({_first_line(error)}).") from error
    if image.mode.startswith(("I", "F")):
        image, note = _to_8_bit(image)
        notes.append(note)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        alpha = None if alpha.getextrema() == (255, 255) else alpha
    rgb, profile = _to_srgb(image, notes)
    return Picture(rgb, alpha, profile, notes)


def _check_size(size: tuple[int, int], limits: Limits, name: str) -> None:
    width, height = size
    if width * height > limits.input_pixels:
        raise InputError(
            f"{name} is {width}x{height}, {width * height:,} pixels; at most {limits.input_pixels:,} are taken. "
            "Make it smaller first, or raise SEESR_INPUT_PIXELS."
        )


def _to_8_bit(image: Image.Image) -> tuple[Image.Image, str]:
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        top = 1.0 if np.nanmax(values, initial=0) <= 1 else 255.0
    else:
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
    scaled = np.nan_to_num(values / top * 255).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(scaled), f"{image.mode} input, the result has 8 bits a channel"


def _to_srgb(image: Image.Image, notes: list[str]) -> tuple[Image.Image, bytes | None]:
    """The image in sRGB, and the profile to bring the result back to, if it has one that can be."""
    base = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    profile = image.info.get("icc_profile")
    if not profile:
        return base.convert("RGB"), None
    srgb = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(base, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        notes.append(f"its colour profile cannot be used and was ignored ({_first_line(error)})")
        return base.convert("RGB"), None
    try:
        ImageCms.buildTransform(srgb, source, "RGB", "RGB")
    except ImageCms.PyCMSError:
        notes.append("its colours were converted to sRGB and stay so")
        return converted, None
    return converted, profile


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
