"""Decodes an input safely: checks its size first, turns it upright, separates colours, alpha and profile."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from struct import error as struct_error
from typing import Protocol
from zlib import error as zlib_error

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageChops, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from seesr.errors import InputError, first_line
from seesr.images.alpha import bleed
from seesr.images.colour_tags import stated_colours, tone_map
from seesr.images.frames import FrameSequence, find_frames, frame_duration
from seesr.images.icc import Colours, convert, is_grey_profile, to_working_space
from seesr.images.jpeg_xl import JXL_SIGNATURES, enable_jpeg_xl
from seesr.images.matrix_profiles import convert_samples
from seesr.images.metadata import Metadata, read_metadata, read_metadata_of_tiff
from seesr.images.rare_files import (
    TIFF_SIGNATURES,
    RareTiff,
    develop_raw,
    is_raw,
    needs_libtiff,
    seek_picture,
    silent_libtiff,
)
from seesr.images.repair import with_jpeg_end, without_damage
from seesr.images.samples import (
    Pixels,
    SampleFormat,
    Samples,
    raw_mode_of,
    read_samples,
    samples_of_array,
    to_8_bit_image,
    to_unit,
    transpose_samples,
)
from seesr.notes import Notes
from seesr.options import Limits

READABLE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "HEIF")
"""Pillow's other plug-ins are not used: some run external programs, or change the size while they decode."""
PICTURE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff"),
    *(".bmp", ".dib", ".gif", ".avif", ".heic", ".heif"),
}
"""Suffixes of the files that are read from a folder; a file that the user names is read whatever its suffix."""
DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(RuntimeError, ZeroDivisionError, struct_error, zlib_error, Image.DecompressionBombError),
)
"""What Pillow's decoders raise on damaged files: each format raises other errors."""

UPRIGHT_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that turns a picture upright, keyed by EXIF orientation."""

GREY_STEP = {"L;2": 85, "L;4": 17}
"""Step between neighbouring grey levels after Pillow expanded samples of 2 or 4 bits to 8 bits, keyed by raw mode."""

MAX_TEXT = 64 << 20
"""Bytes to which a text or a profile in a PNG may unpack; Pillow allows 1 MiB, and profiles of 2 MB are in use."""

FIRST_FRAME = "several frames, the first is used"
"""The note of a picture that is one of several frames; who offers all of them may say how."""

_PILLOW_LOCK = threading.RLock()


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file, and its name in error messages."""

    content: bytes
    name: str = "the data"

    @classmethod
    def read(cls, path: Path, limits: Limits, name: str | None = None) -> EncodedImage:
        """Reads a file.

        Raises:
            InputError: the file cannot be read, or is larger than the limit.
        """
        name = name or str(path)
        try:
            _check_file_size(path.stat().st_size, limits, name)
            with path.open("rb") as file:  # of a pipe, one byte beyond the limit, which `_decode` refuses
                return cls(file.read(limits.input_bytes + 1), name)
        except FileNotFoundError:
            raise InputError(f"{name} does not exist.") from None
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror or error}.") from error


class Readable(Protocol):
    """An open file; of text it is refused."""

    def read(self, size: int = -1, /) -> bytes | str: ...


ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | EncodedImage | Image.Image | np.ndarray
ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded input."""

    rgb: Image.Image
    """Mode RGB, upright, in the space that the networks see (`working`)."""
    alpha: Image.Image | None = None
    """Mode L, the size of `rgb`; None when the input has no transparency."""
    profile: bytes | None = None
    """The ICC profile that the output gets; None is sRGB."""
    working: bytes | None = None
    """The ICC profile of the numbers of `rgb`; None is sRGB."""
    is_grey: bool = False
    """Whether all its channels are equal."""
    mode: str = "RGB"
    """That of the output without alpha: L for an input of that kind, else RGB."""
    metadata: Metadata = field(default_factory=Metadata)
    """What the input's file holds beside its pixels."""
    notes: Notes = field(default_factory=Notes)
    """Conversions of the input that the user should know about."""
    deep: np.ndarray | None = None
    """`rgb` before it was rounded to 8 bits: `(H, W, 3)`, float32 in 0..1; None where the input has 8 bits."""
    bits: int = 8
    """Bits of a channel of the input."""

    @property
    def pixels(self) -> Pixels:
        """What the networks see: `deep`, else `rgb`."""
        return self.rgb if self.deep is None else self.deep

    @cached_property
    def srgb(self) -> Image.Image:
        """`rgb` in sRGB; what is outside it is clipped."""
        return convert(self.rgb, self.working, None)


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame of an animation, or a page."""

    picture: Picture
    duration: Fraction | None = None
    """Seconds for which it is shown; None outside animations."""


def read_picture(source: ImageSource, limits: Limits, keep_numbers: bool = False) -> Picture:
    """Reads a path, the bytes of a file, an open file, a PIL image, or an array.

    Args:
        source: an array is `(H, W)`, `(H, W, 3)` or `(H, W, 4)`, of uint8, uint16, or floating point from 0 to 1.
        keep_numbers: leave the numbers of RGB as they are, whatever their profile says.

    Raises:
        InputError: the source is not a picture, is damaged, or exceeds a limit.
    """
    if isinstance(source, np.ndarray):
        return _of_array(source, limits, keep_numbers)
    if isinstance(source, Image.Image):
        return _to_picture(source, limits, "the image", keep_numbers, notes=_frame_notes(source, Notes()))
    source = _encoded(source, limits)
    return _decode(source.content, limits, source.name, keep_numbers)


def read_frames(source: ImageSource, limits: Limits) -> tuple[FrameSequence, Iterator[Frame]]:
    """All frames of a source of `read_picture`, each of which is decoded when it is asked for.

    Raises:
        InputError: there are more frames than the limit; when a frame is asked for, as `read_picture`.
    """
    if isinstance(source, np.ndarray):
        return FrameSequence(), _picture_alone(source, limits)
    if isinstance(source, Image.Image):
        image, content, name = source, b"", "the image"
    else:
        source = _encoded(source, limits)
        _check_file_size(len(source.content), limits, source.name)
        content, name = source.content, source.name
        try:
            image = _open(content)
        except DECODE_ERRORS:
            if repaired := without_damage(content):
                sequence, frames = read_frames(EncodedImage(repaired[0], name), limits)
                return sequence, _with_note(frames, repaired[1])
            return FrameSequence(), _picture_alone(source, limits)  # of a kind that `read_picture` knows, or an error
    try:
        with _pillow_settings():
            sequence = find_frames(image, content, limits.frames, name)
    except DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    if sequence.kind == "picture":
        return sequence, _picture_alone(source, limits)
    if sequence.kind == "pages":
        return sequence, _read_pages(image, content, sequence, limits, name)
    return sequence, _read_animation(image, content, sequence, limits, name)


def _picture_alone(source: ImageSource, limits: Limits) -> Iterator[Frame]:
    yield Frame(read_picture(source, limits))


def _with_note(frames: Iterator[Frame], note: str) -> Iterator[Frame]:
    for frame in frames:
        frame.picture.notes.add(note)
        yield frame


def _read_pages(image: Image.Image, content: bytes, sequence: FrameSequence, limits: Limits, name: str) -> Iterator[Frame]:
    for number, page in enumerate(sequence.numbers):
        title = f"page {number + 1} of {name}"
        try:
            seen = _seek_page(image, content, page)
        except DECODE_ERRORS as error:
            if not (isinstance(error, SyntaxError) and content.startswith(TIFF_SIGNATURES)):
                raise _damaged(title, error) from error
            yield Frame(_read_rare(content, limits, title, page=page))
        else:
            yield Frame(_to_picture(seen, limits, title, False, content))


def _seek_page(image: Image.Image, content: bytes, page: int) -> Image.Image:
    """`image` at a page, or a new one where only libtiff can decode that page."""
    if image.tell() != page:
        image.info.pop("icc_profile", None)  # Pillow would leave it to pages that have none
    with _pillow_settings():
        image.seek(page)
    if not (content and needs_libtiff(image)):
        return image
    with _pillow_settings(use_libtiff=True):
        image = Image.open(io.BytesIO(content), formats=READABLE_FORMATS)
        image.seek(page)
    return image


def _read_animation(
    image: Image.Image, content: bytes, sequence: FrameSequence, limits: Limits, name: str
) -> Iterator[Frame]:
    size = image.size
    _transparent_colour_to_8_bit(image)
    for number, place in enumerate(sequence.numbers):
        title = f"frame {number + 1} of {name}"
        try:
            with _pillow_settings():
                image.seek(place)
                _check_dimensions(image.size, limits, title)  # a GIF's frame may reach beyond the screen
                image.load()
                frame = image.crop((0, 0, *size)) if image.size != size else image.copy()
        except DECODE_ERRORS as error:
            raise _damaged(title, error) from error
        frame.format = image.format
        picture = _to_picture(frame, limits, title, False, content)
        if number == 0:  # a copy lacks a PNG's texts
            picture = replace(picture, metadata=read_metadata(image, content, _orientation(image), picture.notes))
        yield Frame(picture, frame_duration(image))


def _encoded(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | EncodedImage, limits: Limits
) -> EncodedImage:
    if isinstance(source, bytes | bytearray | memoryview):
        source = EncodedImage(bytes(source))
    elif isinstance(source, str | os.PathLike):
        if ADDRESS.match(str(source)):
            raise InputError(f"{source} is an address; give a file, or its bytes.")
        source = EncodedImage.read(Path(source), limits)
    elif not isinstance(source, EncodedImage):
        content = source.read(limits.input_bytes + 1)
        if not isinstance(content, bytes):
            raise InputError(f"the open file gives {type(content).__name__}; open it in binary mode.")
        source = EncodedImage(content, "the file")
    return source


def load_image(source: EncodedImage, limits: Limits) -> Image.Image:
    """A file as Pillow loads it, for what stands in it beside its pixels.

    Raises:
        InputError: it is not a picture, is damaged, or exceeds a limit.
    """
    try:
        image = _open(source.content)
        _check_dimensions(image.size, limits, source.name)
        with _pillow_settings():
            image.load()  # a PNG's text may stand at its end
    except UnidentifiedImageError:
        raise InputError(f"{source.name} is not a picture in a known format.") from None
    except DECODE_ERRORS as error:
        raise _damaged(source.name, error) from error
    return image


def _of_array(array: np.ndarray, limits: Limits, keep_numbers: bool) -> Picture:
    is_float = array.dtype.kind == "f"
    if (
        not (is_float or array.dtype.str[1:] in ("u1", "u2"))
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (3, 4))
    ):
        raise InputError(
            f"the array is {array.dtype} of shape {array.shape}; give uint8, uint16, or floating point from 0 to 1, "
            "of shape (H, W), (H, W, 3) or (H, W, 4)."
        )
    if array.dtype == np.uint8:
        return _to_picture(Image.fromarray(array), limits, "the array", keep_numbers)
    if is_float and array.size and not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise InputError(f"the array's values go from {array.min():g} to {array.max():g}; give them from 0 to 1.")
    _check_dimensions((array.shape[1], array.shape[0]), limits, "the array")
    samples = Samples(to_unit(array, 1 if is_float else 65535), 8 * array.dtype.itemsize)
    return _to_picture(to_8_bit_image(samples.values), limits, "the array", keep_numbers, samples=samples)


def _decode(content: bytes, limits: Limits, name: str, keep_numbers: bool = False) -> Picture:
    if not content:
        raise InputError(f"{name} is empty (0 bytes).")
    _check_file_size(len(content), limits, name)
    notes = Notes()
    if content.startswith(JXL_SIGNATURES) and not enable_jpeg_xl():
        raise InputError(f"{name} is a JPEG XL; pip install 'seesr[jxl]' to read it.")
    if is_raw(content):
        return _with_metadata(
            _to_picture(develop_raw(content, name, notes), limits, name, keep_numbers, b"", notes), content
        )
    try:
        image = _open(content)
        if isinstance(image, TiffImagePlugin.TiffImageFile) and not seek_picture(image, notes):
            developed = _to_picture(develop_raw(content, name, notes), limits, name, keep_numbers, b"", notes)
            return _with_metadata(developed, content)
        return _to_picture(image, limits, name, keep_numbers, content, _frame_notes(image, notes))
    except DECODE_ERRORS as error:
        if repaired := without_damage(content):
            picture = _decode(repaired[0], limits, name, keep_numbers)
            picture.notes.add(repaired[1])
            return picture
        if not isinstance(error, UnidentifiedImageError):
            raise _damaged(name, error) from error
    if not content.startswith(TIFF_SIGNATURES):
        raise InputError(f"{name} is not a picture in a known format (PNG, JPEG, WebP, TIFF, BMP, GIF, HEIC, AVIF).")
    return _read_rare(content, limits, name, keep_numbers, notes=notes)


def _read_rare(
    content: bytes, limits: Limits, name: str, keep_numbers: bool = False, page: int = 0, notes: Notes | None = None
) -> Picture:
    """A page of a TIFF that Pillow does not know."""
    rare, notes = RareTiff(content, name, page), notes or Notes()
    _check_dimensions(rare.size, limits, name)
    samples = samples_of_array(rare.samples(), name, notes)
    image = to_8_bit_image(samples.values)
    return _with_metadata(_to_picture(image, limits, name, keep_numbers, b"", notes, samples), content)


def _with_metadata(picture: Picture, content: bytes) -> Picture:
    """A picture that Pillow did not read, with the metadata of its file."""
    return replace(picture, metadata=read_metadata_of_tiff(content, picture.notes))


def _open(content: bytes) -> Image.Image:
    """The picture, not loaded yet."""
    pillow_heif.register_heif_opener()
    formats = (*READABLE_FORMATS, "JXL") if content.startswith(JXL_SIGNATURES) else READABLE_FORMATS
    with _pillow_settings():
        image = Image.open(io.BytesIO(content), formats=formats)
    if needs_libtiff(image):
        with _pillow_settings(use_libtiff=True):
            image = Image.open(io.BytesIO(content), formats=READABLE_FORMATS)
    return image


def _open_again(content: bytes, image: Image.Image) -> Image.Image:
    """The same page of the same file, not loaded yet."""
    again = _open(content)
    again.seek(image.tell())
    return again


def _to_picture(
    image: Image.Image,
    limits: Limits,
    name: str,
    keep_numbers: bool,
    content: bytes = b"",
    notes: Notes | None = None,
    samples: Samples | None = None,
) -> Picture:
    _check_dimensions(image.size, limits, name)
    try:
        return _convert(image, limits, name, keep_numbers, content, notes or Notes(), samples)
    except DECODE_ERRORS as error:
        repaired = with_jpeg_end(content)
        if repaired is None:
            raise _damaged(name, error) from error
        picture = _decode(repaired, limits, name, keep_numbers)
        picture.notes.add("the input lacks its end marker, but no pixel")
        return picture
    except MemoryError as error:
        raise InputError(f"{name} is {image.width}x{image.height}, too large for this machine's memory.") from error


def _damaged(name: str, error: BaseException) -> InputError:
    return InputError(f"{name} is damaged or cut short and cannot be decoded ({first_line(error)}).")


def _convert(
    image: Image.Image,
    limits: Limits,
    name: str,
    keep_numbers: bool,
    content: bytes,
    notes: Notes,
    samples: Samples | None = None,
) -> Picture:
    """`samples` are those of `image` where they are known already."""
    sample_format = SampleFormat.of(image, content)
    with _pillow_settings():  # Pillow checks the size of a TIFF again here
        if samples is None:
            samples = read_samples(image, content, partial(_open_again, content, image), sample_format, notes)
        if samples is None:
            _transparent_colour_to_8_bit(image)
            image.load()
            if sample_format.bits > 8:
                notes.add(f"{sample_format.bits} bits a channel, of which 8 are read")
    _check_dimensions(image.size, limits, name)  # decoding a HEIC can change its size
    # Before it is turned upright, for a copy lacks a TIFF's EXIF.
    orientation = _orientation(image)
    metadata, transpose, values = read_metadata(image, content, orientation, notes), UPRIGHT_TRANSPOSE.get(orientation), None
    colours = stated_colours(image, content, notes)
    if samples is None:
        image = image.copy() if transpose is None else image.transpose(transpose)
    else:
        values = samples.values if transpose is None else transpose_samples(samples.values, transpose)
        image = to_8_bit_image(values)
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    alpha = None
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("LA" if mode == "L" else "RGBA")
        alpha = image.getchannel("A")
        alpha = None if alpha.getextrema() == (255, 255) else alpha
    image = image if image.mode in ("L", "RGB", "CMYK") else image.convert(mode)
    values = values if values is None else values[..., : len(mode)]
    if colours.transfer is not None:
        values = values if values is None else tone_map(values, colours.transfer)
        image = Image.fromarray(tone_map(np.asarray(image), colours.transfer)) if values is None else to_8_bit_image(values)
    seen = to_working_space(image, colours.profile, notes, keep_numbers)
    rgb = seen.rgb if alpha is None else bleed(seen.rgb, alpha)
    rgb.info = {}  # orientation and profile have been applied, and would be again if `rgb` became an input
    deep = None if values is None else _deep(values, seen, rgb, alpha, notes)
    is_grey = mode == "L" or _has_equal_channels(rgb if deep is None else deep)
    if mode == "L" and seen.profile is not None and not is_grey_profile(seen.profile):
        mode = "RGB"
    bits = 8 if deep is None or samples is None else samples.bits
    return Picture(rgb, alpha, seen.profile, seen.working, is_grey, mode, metadata, notes, deep, bits)


def _deep(values: np.ndarray, seen: Colours, rgb: Image.Image, alpha: Image.Image | None, notes: Notes) -> np.ndarray | None:
    """`Picture.deep` of samples of one or three channels; `rgb` is that picture in 8 bits."""
    deep = convert_samples(np.broadcast_to(values, (*values.shape[:2], 3)), seen.source, seen.working)
    if deep is None:
        notes.add("its colour profile works by tables, so that 8 bits a channel are read")
        return None
    if alpha is not None:  # what is transparent has the colours of its surroundings
        hidden = np.asarray(alpha) == 0
        deep = np.where(hidden[..., None], np.asarray(rgb) / np.float32(255), deep)
    return deep


def _frame_notes(image: Image.Image, notes: Notes) -> Notes:
    """`notes` with that of an image of several frames."""
    # In a camera's MPO the further frames are previews, which no user would miss.
    # Frames are not counted: for that Pillow would read the whole file, which takes hours if it has many tiny frames.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.add(FIRST_FRAME)
    return notes


def _has_equal_channels(rgb: Image.Image | np.ndarray) -> bool:
    if isinstance(rgb, np.ndarray):
        return bool((rgb == rgb[..., :1]).all())
    red = rgb.getchannel("R")
    return all(ImageChops.difference(red, rgb.getchannel(name)).getbbox() is None for name in ("G", "B"))


@contextmanager
def _pillow_settings(use_libtiff: bool = False) -> Iterator[None]:
    """Pillow's own limits off, for `Limits.input_pixels` is checked instead, before any pixel is decoded; libtiff silent.

    Args:
        use_libtiff: decode TIFF files by libtiff that Pillow would decode by itself.
    """
    with _PILLOW_LOCK:
        before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, TiffImagePlugin.READ_LIBTIFF
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MAX_TEXT
        TiffImagePlugin.READ_LIBTIFF = use_libtiff
        try:
            with silent_libtiff():
                yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, TiffImagePlugin.READ_LIBTIFF = before


def _check_file_size(count: int, limits: Limits, name: str) -> None:
    if count > limits.input_bytes:
        raise InputError(f"{name} has {count:,} bytes; at most {limits.input_bytes:,} are allowed (SEESR_INPUT_BYTES).")


def _check_dimensions(size: tuple[int, int], limits: Limits, name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"{name} is {width}x{height}: it has no pixels.")
    if width * height > limits.input_pixels:
        raise InputError(
            f"{name} is {width}x{height}, {width * height:,} pixels; at most {limits.input_pixels:,} are allowed. "
            "Make it smaller first, or raise SEESR_INPUT_PIXELS."
        )


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where it is none of these, or cannot be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DECODE_ERRORS:
        return 1
    return orientation if orientation in UPRIGHT_TRANSPOSE else 1


def _transparent_colour_to_8_bit(image: Image.Image) -> None:
    """Converts the transparent colour of a PNG to 8 bits; Pillow converts only the pixels, when it loads them."""
    transparent, raw_mode = image.info.get("transparency"), raw_mode_of(image)
    if isinstance(transparent, int) and raw_mode in GREY_STEP:
        image.info["transparency"] = transparent * GREY_STEP[raw_mode]
    elif isinstance(transparent, tuple) and raw_mode.endswith(";16B"):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
