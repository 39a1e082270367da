"""Writes image files atomically: on an error the file that was there before stays."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from seesr.errors import OptionError, OutputError
from seesr.files import atomic_write
from seesr.images.icc import to_srgb
from seesr.images.jpeg_xl import enable_jpeg_xl
from seesr.images.matrix_profiles import convert_samples
from seesr.images.metadata import Metadata, metadata_arguments
from seesr.images.png import with_16_bit_pixels
from seesr.images.samples import to_integers, to_unit
from seesr.images.tiff import write_tiff
from seesr.notes import Notes
from seesr.options import SaveOptions

PILLOW_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
    ".jxl": "JXL",
}
"""Pillow's names of the formats that can be written, by suffix."""
NO_ALPHA, NO_PROFILE = ("JPEG", "BMP"), ("BMP", "JXL")
"""Formats without transparency, which becomes white, and formats without a colour profile, whose colours become sRGB."""
CHROMA_SUBSAMPLED, FULL_CHROMA_QUALITY = ("JPEG", "AVIF"), 90
"""Formats that subsample chroma to a quarter by default, and the lowest quality at which it is kept in full (4:4:4)."""
LOSSLESS_QUALITY = 100
"""The quality at which JPEG XL is lossless."""
DEEP_BITS = {"PNG": (16,), "TIFF": (16,), "AVIF": (10, 12)}
"""Bits of a channel beyond 8 that can be written, by format."""
SRGB_PRIMARIES, SRGB_TRANSFER, BT601_MATRIX = 1, 13, 6
"""Code points of ITU-T H.273."""


class Writable(Protocol):
    """A file that is open for writing bytes."""

    def write(self, content: bytes, /) -> object: ...


@dataclass(frozen=True, eq=False)
class Deep:
    """What a picture holds beyond 8 bits."""

    samples: np.ndarray
    """uint16 `(H, W, C)` up to 65535: grey, grey and alpha, RGB, or RGB and alpha."""
    bits: int
    """Bits of a channel that are written."""


Target = str | os.PathLike[str] | Writable
"""Where a picture is written to."""


def pillow_format(path: Path, all_frames: bool = False) -> str:
    """Pillow's name of the format that belongs to the suffix of `path`; GIF only where all frames of an input are written.

    Raises:
        OutputError: the suffix is unknown, or the format needs a package that is not installed.
    """
    if path.suffix.lower() == ".gif":
        if all_frames:
            return "GIF"
        raise OutputError(f"{path}: GIF is written for animations only; take all frames, or write PNG.")
    try:
        image_format = PILLOW_FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path} has no known picture suffix; use one of {', '.join(PILLOW_FORMATS)}.") from None
    if image_format == "JXL" and not enable_jpeg_xl():
        raise OutputError(f"{path}: JPEG XL needs the package pillow-jxl-plugin; pip install '.[jxl]'.")
    return image_format


def resolve_target(target: Target, options: SaveOptions) -> tuple[Path, Writable | None]:
    """The path, whose suffix gives the format, and the open file; of a file the path is made up.

    Raises:
        OptionError: of an open file the format is not given.
    """
    if isinstance(target, str | os.PathLike):
        return Path(target), None
    if options.format is None:
        raise OptionError("an open file has no suffix that gives its format; give it in SaveOptions(format=...).")
    return Path(f"the file.{options.format}"), target


def written_metadata(metadata: Metadata | None, options: SaveOptions) -> Metadata:
    """What of an input's metadata is written."""
    metadata = metadata or Metadata()
    return metadata if options.metadata else metadata.anonymous()


def check_bits(path: Path, bits: int) -> None:
    """Checks that the format of `path` holds `bits` a channel.

    Raises:
        OutputError: it does not, or its suffix is unknown, or a package for it is not installed.
    """
    if bits == 8:
        return
    image_format = pillow_format(path, all_frames=True)
    if bits not in DEEP_BITS.get(image_format, ()):
        holding = " or ".join(known for known, depths in DEEP_BITS.items() if bits in depths)
        raise OutputError(f"{path}: {image_format} is not written with {bits} bits a channel; use {holding}, or 8 bits.")
    if image_format == "AVIF" and importlib.util.find_spec("imagecodecs") is None:
        raise OutputError(f"{path}: AVIF of {bits} bits needs the package imagecodecs; pip install 'seesr[formats]'.")


def save(
    image: Image.Image,
    target: Target,
    options: SaveOptions | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
    infotext: str | None = None,
    metadata: Metadata | None = None,
    deep: Deep | None = None,
) -> list[str]:
    """Writes `image` to `target`: a path, whose suffix determines the format, or an open file, where `options.format` does.

    Args:
        options: quality, and whether `metadata` is written; its resolution and the ICC profile in `image.info` always are.
        settings: the settings that made the picture, which are written into the file.
        name: the name of the file in error messages; by default its path.
        infotext: the settings of a generated picture as other programs read them; it also marks the picture as synthetic.
        metadata: what the file gets of its input's.
        deep: the samples of `image`, to be written in place of its 8 bits.

    Returns: notes on what of the metadata the format does not hold.

    Raises:
        OutputError: the suffix is unknown, or the file cannot be written. A file that was there before stays.
        OptionError: of an open file the format is not given.
    """
    with save_on_success(image, target, options, settings, name, infotext, metadata, deep) as notes:
        return list(notes)


@contextmanager
def save_on_success(
    image: Image.Image,
    target: Target,
    options: SaveOptions | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
    infotext: str | None = None,
    metadata: Metadata | None = None,
    deep: Deep | None = None,
) -> Iterator[list[str]]:
    """Like `save`, but moves the file into place only after the body of the `with` statement has succeeded.

    Yields the notes that `save` returns.
    """
    options = options or SaveOptions()
    path, stream = resolve_target(target, options)
    name = name or (str(path) if stream is None else "the file")
    check_bits(path, deep.bits if deep else 8)
    image_format = pillow_format(path)
    if image_format in NO_ALPHA and image.mode in ("LA", "RGBA"):
        opaque = image.convert(image.mode.removesuffix("A"))
        flat = Image.new(opaque.mode, image.size, "white")
        flat.paste(opaque, mask=image.getchannel("A"))
        flat.info = image.info
        image = flat
    if image_format in NO_PROFILE and image.info.get("icc_profile"):
        alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
        image, _ = to_srgb(image, Notes())
        if alpha is not None:
            image.putalpha(alpha)
    notes = Notes()
    full_chroma = image_format in CHROMA_SUBSAMPLED and options.quality >= FULL_CHROMA_QUALITY
    arguments: dict[str, Any] = {"subsampling": "4:4:4"} if full_chroma else {}
    arguments |= metadata_arguments(image_format, written_metadata(metadata, options), settings, infotext, notes)
    if deep and image_format == "AVIF":
        notes.add(f"AVIF of {deep.bits} bits is written in sRGB, without metadata and settings")
    arguments |= {"quality": options.quality, "icc_profile": image.info.get("icc_profile")}
    if image_format == "JXL":
        arguments["lossless"] = options.quality >= LOSSLESS_QUALITY
    try:
        with atomic_write(path) if stream is None else _whole_write(stream) as destination:
            if deep or image_format == "TIFF":
                _write_ourselves(image, destination, image_format, arguments, deep)
            else:
                image.save(destination, format=image_format, **arguments)
            yield list(notes)
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {error.strerror or error}.") from error
    except (ValueError, RuntimeError) as error:  # WebP and AVIF raise these where a side is too long for the format
        raise OutputError(f"{name} cannot be written as {image_format} of {image.width}x{image.height}: {error}.") from error


def _write_ourselves(
    image: Image.Image, destination: Path | io.BytesIO, image_format: str, arguments: dict[str, Any], deep: Deep | None
) -> None:
    """Writes what Pillow does not: TIFF with EXIF and deflate, and more than 8 bits."""
    samples = np.asarray(image) if deep is None else deep.samples
    with destination.open("wb") if isinstance(destination, Path) else nullcontext(destination) as file:
        if image_format == "TIFF":
            write_tiff(file, samples, arguments.get("exif"), arguments["icc_profile"])
        elif image_format == "PNG":
            with io.BytesIO() as small:
                Image.new(image.mode, (1, 1)).save(small, "PNG", **arguments)
                file.writelines(with_16_bit_pixels(small.getvalue(), samples))
        elif deep is not None:
            file.write(_avif(samples, arguments["icc_profile"], arguments["quality"], deep.bits))


def _avif(samples: np.ndarray, profile: bytes | None, quality: int, bits: int) -> bytes:
    """The file, whose colours become sRGB, for imagecodecs writes no profile."""
    import imagecodecs

    unit, is_grey = to_unit(samples, 65535), samples.shape[2] < 3
    colours = unit[..., :1].repeat(3, axis=2) if is_grey else unit[..., :3]
    converted = convert_samples(colours, profile, None)
    alpha = unit[..., 1 if is_grey else 3 :]
    numbers = to_integers(np.concatenate([colours if converted is None else converted, alpha], axis=2), bits)
    points: dict[str, Any] = {"primaries": SRGB_PRIMARIES, "transfer": SRGB_TRANSFER, "matrix": BT601_MATRIX}
    pixel_format = "yuv444" if quality >= FULL_CHROMA_QUALITY else "yuv420"
    return bytes(imagecodecs.avif_encode(numbers, level=quality, bitspersample=bits, pixelformat=pixel_format, **points))


@contextmanager
def _whole_write(stream: Writable) -> Iterator[io.BytesIO]:
    """Yields a buffer that is written to `stream` if the block raises nothing; encoders seek, and a pipe cannot."""
    buffer = io.BytesIO()
    yield buffer
    stream.write(buffer.getvalue())
