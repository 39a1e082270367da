"""Decodes an input safely: checks its size first, mends what can be mended, and takes one frame or all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from seesr.errors import InputError
from seesr.images.encoded import (
    DECODE_ERRORS,
    READABLE_FORMATS,
    EncodedImage,
    ImageSource,
    check_dimensions,
    check_file_size,
    damaged,
    encoded,
    open_image,
    pillow_settings,
)
from seesr.images.frames import FrameSequence, find_frames, frame_duration
from seesr.images.jpeg_xl import JXL_SIGNATURES, enable_jpeg_xl
from seesr.images.metadata import read_metadata, read_metadata_of_tiff
from seesr.images.picture import Picture, orientation_of, separate, transparent_colour_to_8_bit
from seesr.images.rare_files import TIFF_SIGNATURES, RareTiff, develop_raw, is_raw, needs_libtiff, seek_picture
from seesr.images.repair import with_jpeg_end, without_damage
from seesr.images.samples import Samples, samples_of_array, to_8_bit_image, to_unit
from seesr.notes import Notes
from seesr.options import Limits

FIRST_FRAME = "several frames, the first is used"
"""The note of a picture that is one of several frames; who offers all of them may say how."""


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
    source = encoded(source, limits)
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
        source = encoded(source, limits)
        check_file_size(len(source.content), limits, source.name)
        content, name = source.content, source.name
        try:
            image = open_image(content)
        except DECODE_ERRORS:
            if repaired := without_damage(content):
                sequence, frames = read_frames(EncodedImage(repaired[0], name), limits)
                return sequence, _with_note(frames, repaired[1])
            return FrameSequence(), _picture_alone(source, limits)  # of a kind that `read_picture` knows, or an error
    try:
        with pillow_settings():
            sequence = find_frames(image, content, limits.frames, name)
    except DECODE_ERRORS as error:
        raise damaged(name, error) from error
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
                raise damaged(title, error) from error
            yield Frame(_read_rare(content, limits, title, page=page))
        else:
            yield Frame(_to_picture(seen, limits, title, False, content))


def _seek_page(image: Image.Image, content: bytes, page: int) -> Image.Image:
    """`image` at a page, or a new one where only libtiff can decode that page."""
    if image.tell() != page:
        image.info.pop("icc_profile", None)  # Pillow would leave it to pages that have none
    with pillow_settings():
        image.seek(page)
    if not (content and needs_libtiff(image)):
        return image
    with pillow_settings(use_libtiff=True):
        image = Image.open(io.BytesIO(content), formats=READABLE_FORMATS)
        image.seek(page)
    return image


def _read_animation(
    image: Image.Image, content: bytes, sequence: FrameSequence, limits: Limits, name: str
) -> Iterator[Frame]:
    size = image.size
    transparent_colour_to_8_bit(image)
    for number, place in enumerate(sequence.numbers):
        title = f"frame {number + 1} of {name}"
        try:
            with pillow_settings():
                image.seek(place)
                check_dimensions(image.size, limits, title)  # a GIF's frame may reach beyond the screen
                image.load()
                frame = image.crop((0, 0, *size)) if image.size != size else image.copy()
        except DECODE_ERRORS as error:
            raise damaged(title, error) from error
        frame.format = image.format
        picture = _to_picture(frame, limits, title, False, content)
        if number == 0:  # a copy lacks a PNG's texts
            picture = replace(picture, metadata=read_metadata(image, content, orientation_of(image), picture.notes))
        yield Frame(picture, frame_duration(image))


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
    check_dimensions((array.shape[1], array.shape[0]), limits, "the array")
    samples = Samples(to_unit(array, 1 if is_float else 65535), 8 * array.dtype.itemsize)
    return _to_picture(to_8_bit_image(samples.values), limits, "the array", keep_numbers, samples=samples)


def _decode(content: bytes, limits: Limits, name: str, keep_numbers: bool = False) -> Picture:
    if not content:
        raise InputError(f"{name} is empty (0 bytes).")
    check_file_size(len(content), limits, name)
    notes = Notes()
    if content.startswith(JXL_SIGNATURES) and not enable_jpeg_xl():
        raise InputError(f"{name} is a JPEG XL; pip install 'seesr[jxl]' to read it.")
    if is_raw(content):
        return _with_metadata(
            _to_picture(develop_raw(content, name, notes), limits, name, keep_numbers, b"", notes), content
        )
    try:
        image = open_image(content)
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
            raise damaged(name, error) from error
    if not content.startswith(TIFF_SIGNATURES):
        raise InputError(f"{name} is not a picture in a known format (PNG, JPEG, WebP, TIFF, BMP, GIF, HEIC, AVIF).")
    return _read_rare(content, limits, name, keep_numbers, notes=notes)


def _read_rare(
    content: bytes, limits: Limits, name: str, keep_numbers: bool = False, page: int = 0, notes: Notes | None = None
) -> Picture:
    """A page of a TIFF that Pillow does not know."""
    rare, notes = RareTiff(content, name, page), notes or Notes()
    check_dimensions(rare.size, limits, name)
    samples = samples_of_array(rare.samples(), name, notes)
    image = to_8_bit_image(samples.values)
    return _with_metadata(_to_picture(image, limits, name, keep_numbers, b"", notes, samples), content)


def _with_metadata(picture: Picture, content: bytes) -> Picture:
    """A picture that Pillow did not read, with the metadata of its file."""
    return replace(picture, metadata=read_metadata_of_tiff(content, picture.notes))


def _to_picture(
    image: Image.Image,
    limits: Limits,
    name: str,
    keep_numbers: bool,
    content: bytes = b"",
    notes: Notes | None = None,
    samples: Samples | None = None,
) -> Picture:
    check_dimensions(image.size, limits, name)
    try:
        return separate(image, limits, name, keep_numbers, content, notes or Notes(), samples)
    except DECODE_ERRORS as error:
        repaired = with_jpeg_end(content)
        if repaired is None:
            raise damaged(name, error) from error
        picture = _decode(repaired, limits, name, keep_numbers)
        picture.notes.add("the input lacks its end marker, but no pixel")
        return picture
    except MemoryError as error:
        raise InputError(f"{name} is {image.width}x{image.height}, too large for this machine's memory.") from error


def _frame_notes(image: Image.Image, notes: Notes) -> Notes:
    """`notes` with that of an image of several frames."""
    # In a camera's MPO the further frames are previews, which no user would miss.
    # Frames are not counted: for that Pillow would read the whole file, which takes hours if it has many tiny frames.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.add(FIRST_FRAME)
    return notes
