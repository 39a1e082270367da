"""Bytes to a picture, safely: bounds checked before decoding, turned upright, in sRGB, alpha and profile set aside."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import error as struct_error
from zlib import error as zlib_error

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from seesr.errors import InputError
from seesr.images.alpha import bleed
from seesr.images.metadata import kept_exif
from seesr.notes import Notes
from seesr.options import Limits

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "HEIF")
"""What is read at all: other plug-ins of Pillow run programs, or change the size while they decode."""
PICTURE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff"),
    *(".bmp", ".dib", ".gif", ".avif", ".heic", ".heif"),
}
"""What is taken from folders; a file named by the user is tried whatever its name."""
DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(RuntimeError, struct_error, zlib_error, Image.DecompressionBombError),
)
"""How Pillow's readers say that a file is damaged: in as many ways as there are formats."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by EXIF's orientation."""

GREY_STEPS = {"L;2": 85, "L;4": 17}
"""What of the 256 greys lies between two of a file's, by Pillow's name for how they are packed."""

ROWS_AT_ONCE = 64
"""Of a picture with more than 8 bits, which are brought to 8 in float64."""

_LIMIT_LOCK = threading.Lock()


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of a picture file, and what messages call it."""

    content: bytes
    name: str = "the data"

    @classmethod
    def read(cls, path: Path, limits: Limits, name: str | None = None) -> EncodedImage:
        """Of a file that is no longer than the limit.

        Raises:
            InputError: it cannot be read, or is too long.
        """
        name = name or str(path)
        try:
            _check_bytes(path.stat().st_size, limits, name)
            with path.open("rb") as file:  # bounded, for a pipe has no size
                return cls(file.read(limits.input_bytes + 1), name)
        except FileNotFoundError:
            raise InputError(f"{name} does not exist.") from None
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror or error}.") from error


ImageSource = str | Path | bytes | EncodedImage | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded input."""

    rgb: Image.Image
    """Mode RGB, upright, sRGB."""
    alpha: Image.Image | None = None
    """Mode L, the size of `rgb`; None when the input has no transparency."""
    profile: bytes | None = None
    """The ICC profile that the input's colours were in."""
    exif: bytes | None = None
    """What of the input's EXIF goes on to the result."""
    notes: Notes = field(default_factory=Notes)
    """What was done to the input that a user would want to know."""


def read_picture(source: ImageSource, limits: Limits) -> Picture:
    """Reads a path, the bytes of a file, a PIL image, or an array `(H, W)`, `(H, W, 3)` or `(H, W, 4)` of uint8.

    Raises:
        InputError: not a picture, damaged, or beyond a limit.
    """
    if isinstance(source, np.ndarray):
        return _to_picture(_from_array(source), limits, "the array")
    if isinstance(source, Image.Image):
        return _to_picture(source, limits, "the image")
    if isinstance(source, bytes):
        source = EncodedImage(source)
    elif not isinstance(source, EncodedImage):
        source = EncodedImage.read(Path(source), limits)
    return _decode(source.content, limits, source.name)


def to_srgb(image: Image.Image, notes: Notes) -> tuple[Image.Image, bytes | None]:
    """The image in sRGB, and the profile to bring the result back to, if it has one that can be."""
    base = image if image.mode in ("RGB", "L", "CMYK") else image.convert("L" if image.mode in ("1", "LA") else "RGB")
    profile = image.info.get("icc_profile")
    if not profile:
        return base.convert("RGB"), None
    srgb = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(base, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        notes.add(f"its colour profile cannot be used and was ignored ({_first_line(error)})")
        return base.convert("RGB"), None
    try:
        ImageCms.buildTransform(srgb, source, "RGB", "RGB")
    except ImageCms.PyCMSError:
        notes.add("its colours were converted to sRGB and stay so")
        return converted, None
    return converted, profile


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            f"the array is {array.dtype} of shape {array.shape}; give uint8 of shape (H, W), (H, W, 3) or (H, W, 4)."
        )
    return Image.fromarray(array)


def _decode(content: bytes, limits: Limits, name: str) -> Picture:
    if not content:
        raise InputError(f"{name} is empty (0 bytes).")
    _check_bytes(len(content), limits, name)
    pillow_heif.register_heif_opener()
    try:
        with _own_limit():
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is not a picture in a known format (PNG, JPEG, WebP, TIFF, BMP, GIF, HEIC, AVIF)."
        ) from None
    except DAMAGE as error:
        raise InputError(f"{name} is damaged or cut short and cannot be decoded ({_first_line(error)}).") from error
    return _to_picture(image, limits, name)


def _to_picture(image: Image.Image, limits: Limits, name: str) -> Picture:
    _check_size(image.size, limits, name)
    try:
        return _convert(image, limits, name)
    except DAMAGE as error:
        raise InputError(f"{name} is damaged or cut short and cannot be decoded ({_first_line(error)}).") from error
    except MemoryError as error:
        raise InputError(f"{name} is {image.width}x{image.height}, too large for this machine's memory.") from error


@dataclass(frozen=True)
class Numbers:
    """What a file says of its numbers, beside the mode that Pillow gives it: of most it is silent."""

    bits: int
    """A channel."""
    signed: bool = True
    inverted: bool = False
    """Whether 0 is white; Pillow turns 8 bits round, but not more."""

    @classmethod
    def of(cls, image: Image.Image) -> Numbers:
        """Of an image that is not loaded yet; of a TIFF, or from memory, also later."""
        tags = getattr(image, "tag_v2", None)
        if tags is not None:
            unsigned = tags.get(SAMPLEFORMAT, (1,))[0] == 1
            return cls(tags.get(BITSPERSAMPLE, (1,))[0], not unsigned, tags.get(PHOTOMETRIC_INTERPRETATION) == 0)
        if image.mode in ("I", "F"):
            return cls(32)
        packed = _packed(image)
        return cls(16 if image.mode.startswith("I") or (";16" in packed and packed != "BGR;16") else 8)


def _packed(image: Image.Image) -> str:
    """How the numbers of a file are packed, by Pillow's name, like `L;4`; nothing once they are loaded."""
    packed = image.tile[0][3] if getattr(image, "tile", []) else ""
    return str(packed[0] if isinstance(packed, tuple) and packed else packed)


def _convert(image: Image.Image, limits: Limits, name: str) -> Picture:
    notes, numbers = Notes(), Numbers.of(image)
    if numbers.bits > 8:
        notes.add(f"{numbers.bits} bits a channel, the result has 8")
    # A camera's MPO carries previews as further frames: nothing that a user would miss.
    # Not counted: Pillow would read all of a file for it, for hours where that is made of tiny frames.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.add("several frames, the first is used")
    _match_transparency(image)
    with _own_limit():  # a TIFF is measured again here
        image.load()
    _check_size(image.size, limits, name)  # a HEIC may have said otherwise before it was decoded
    exif = _exif(image, notes)  # before it is turned: what a TIFF says is not in the copy
    image = _upright(image)
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image, numbers, notes)
    alpha = None
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("LA" if image.mode in ("1", "L") else "RGBA")
        alpha = image.getchannel("A")
        alpha = None if alpha.getextrema() == (255, 255) else alpha
    rgb, profile = to_srgb(image, notes)
    if alpha is not None:
        rgb = bleed(rgb, alpha)
    rgb.info = {}  # what it said was heeded: read again, it would be turned again
    return Picture(rgb, alpha, profile, exif, notes)


@contextmanager
def _own_limit() -> Iterator[None]:
    """Without Pillow's own limit of pixels: `limits` decides here, before any pixel is decoded."""
    with _LIMIT_LOCK:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_bytes(count: int, limits: Limits, name: str) -> None:
    if count > limits.input_bytes:
        raise InputError(f"{name} has {count:,} bytes; at most {limits.input_bytes:,} are taken (SEESR_INPUT_BYTES).")


def _check_size(size: tuple[int, int], limits: Limits, name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"{name} is {width}x{height}: it has no pixels.")
    if width * height > limits.input_pixels:
        raise InputError(
            f"{name} is {width}x{height}, {width * height:,} pixels; at most {limits.input_pixels:,} are taken. "
            "Make it smaller first, or raise SEESR_INPUT_PIXELS."
        )


def _exif(image: Image.Image, notes: Notes) -> bytes | None:
    try:
        return kept_exif(image)
    except ValueError as error:
        notes.add(f"{error} and was left out")
        return None


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says, as far as that can be read."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except DAMAGE:
        turn = None
    return image.copy() if turn is None else image.transpose(turn)


def _match_transparency(image: Image.Image) -> None:
    """Brings the colour that a PNG calls transparent to 8 bits, as Pillow will with pixels when it loads them."""
    transparent, packed = image.info.get("transparency"), _packed(image)
    if isinstance(transparent, int) and packed in GREY_STEPS:
        image.info["transparency"] = transparent * GREY_STEPS[packed]
    elif isinstance(transparent, tuple) and packed.endswith(";16B"):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _to_8_bit(image: Image.Image, numbers: Numbers, notes: Notes) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "I" and not numbers.signed:
        values = values.view(np.uint32)  # Pillow has no such mode
    peak = float(values.max(initial=0, where=np.isfinite(values)))
    if image.mode == "F":
        white = _white(peak)
        notes.add(f"its numbers reach {peak:g}, {white:g} was taken for white")
    elif image.mode == "I":
        white = 255.0 if peak <= 255 else max(peak, 65535.0)
    else:
        white = 2.0**numbers.bits - 1
    grey = np.empty(values.shape, np.uint8)
    for first in range(0, len(values), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        shares = np.nan_to_num(values[rows].astype(np.float64), posinf=peak, neginf=0) / white
        grey[rows] = ((1 - shares if numbers.inverted else shares) * 255).clip(0, 255).round()
    made = Image.fromarray(grey)
    made.info = {name: value for name, value in image.info.items() if name != "transparency"}
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        made.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return made


def _white(peak: float) -> float:
    """What a picture of floating-point numbers up to `peak` means by white.

    No file says. The usual ones are 1, 255 and 65535, which enlarging and sharpening overshoot; of others the peak is white.
    """
    usual = (1.0, 255.0, 65535.0)
    return 1.0 if peak <= 1 else next((white for white in usual if white / 4 < peak <= 2 * white), peak)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
