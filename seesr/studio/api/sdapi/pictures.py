"""Pictures as A1111's clients send and get them: base64, fitted to a size, and many in one grid."""

from __future__ import annotations

import base64
import binascii
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from seesr.errors import InputError
from seesr.generation.masks import mask_of
from seesr.images.encoded import EncodedImage, open_image
from seesr.images.metadata import read_infotext
from seesr.images.metadata.settings import INFOTEXT_KEY
from seesr.images.read import read_picture
from seesr.images.sizes import Size
from seesr.options import Limits
from seesr.studio.api.encoding import encode
from seesr.studio.api.sdapi.errors import UnprocessableError

Fit = Literal["stretch", "crop", "fill"]
FITS: tuple[Fit, ...] = ("stretch", "crop", "fill")
"""By the numbers of `resize_mode`."""
MAX_GRID = 100_000_000
"""Pixels of a grid, which is made in the web process."""


def from_base64(text: str, name: str) -> bytes:
    """The file in a data URL, or in base64 alone.

    Raises:
        UnprocessableError: it is neither; addresses are never fetched.
    """
    if text[:8].lower().startswith(("http:", "https:")):
        raise UnprocessableError(f"{name} is an address, and none is fetched; send the picture itself as base64.")
    content = text.partition(",")[2] if text[:5].lower() == "data:" else text
    try:
        # Not `split`, which makes a text of its own of each part.
        digits = content.encode("ascii").translate(None, string.whitespace.encode()).rstrip(b"=")
        decoded = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if not decoded:
        raise UnprocessableError(f"{name} is neither base64 nor a data URL; send the picture so.")
    return decoded


def require_picture(content: bytes, name: str, limits: Limits) -> Image.Image:
    """A picture, decoded, upright and without transparency.

    Raises:
        UnprocessableError: it is none, is damaged, or exceeds a limit.
    """
    try:
        return read_picture(EncodedImage(content, name), limits).rgb
    except InputError as error:
        raise UnprocessableError(str(error)) from None


@dataclass(frozen=True)
class Begin:
    """The picture that img2img begins from, and the mask where there is one."""

    image: bytes
    size: Size
    mask: bytes | None = None


def begin(image: bytes, mask: bytes | None, size: Size | None, fit: Fit, limits: Limits) -> Begin:
    """A picture at a size, with the mask at the same.

    What has the size already stays as it was sent.

    Args:
        size: width and height; None is that of the picture.

    Raises:
        UnprocessableError: the picture or the mask cannot be read.
    """
    picture = require_picture(image, "the picture", limits)
    size = size or picture.size
    result = Begin(image, size) if picture.size == size else Begin(_png(fitted(picture, size, fit)), size)
    if mask is None:
        return result
    try:
        white = mask_of(read_picture(EncodedImage(mask, "the mask"), limits, keep_numbers=True))
    except InputError as error:
        raise UnprocessableError(str(error)) from None
    if white.size != picture.size:
        white = white.resize(picture.size, Image.Resampling.LANCZOS)
    return replace(result, mask=_png(white if white.size == size else fitted(white, size, fit)))


def fitted(picture: Image.Image, size: Size, fit: Fit) -> Image.Image:
    """A picture at a size: stretched, cropped at two sides, or with its own border repeated at two sides."""
    if fit == "stretch":
        return picture.resize(size, Image.Resampling.LANCZOS)
    if fit == "crop":
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    inner = ImageOps.contain(picture, size, Image.Resampling.LANCZOS)
    left, top = (size[0] - inner.width) // 2, (size[1] - inner.height) // 2
    right, bottom = left + inner.width, top + inner.height
    canvas = Image.new(picture.mode, size)
    canvas.paste(inner, (left, top))
    for strip, place in (
        ((left, top, left + 1, bottom), (0, top, left, bottom)),
        ((right - 1, top, right, bottom), (right, top, size[0], bottom)),
        ((0, top, size[0], top + 1), (0, 0, size[0], top)),
        ((0, bottom - 1, size[0], bottom), (0, bottom, *size)),
    ):
        if place[0] < place[2] and place[1] < place[3]:
            canvas.paste(canvas.crop(strip).resize((place[2] - place[0], place[3] - place[1])), place)
    return canvas


def cropped(content: bytes, size: Size) -> bytes:
    """A picture cut at two sides, and scaled where it is not as large, to a size; a PNG file."""
    return _png(ImageOps.fit(open_image(content), size, Image.Resampling.LANCZOS))


def infotext_of(content: bytes) -> str:
    """The infotext in a file that was made here; "" where it has none."""
    return read_infotext(open_image(content)) or ""


def texts_of(content: bytes) -> dict[str, str]:
    """The texts of a file but for the infotext, by their keys."""
    info = open_image(content).info
    return {str(key): value for key, value in info.items() if isinstance(value, str) and key != INFOTEXT_KEY}


def grid(contents: Sequence[bytes]) -> bytes | None:
    """All pictures in one, as near to a square as A1111's grid, with the infotext of the first; a PNG file.

    None where it would have more than `MAX_GRID` pixels.
    """
    rows = min(len(contents), round(math.sqrt(len(contents))))
    columns = math.ceil(len(contents) / rows)
    width, height = open_image(contents[0]).size
    if rows * columns * width * height > MAX_GRID:
        return None
    sheet = Image.new("RGB", (columns * width, rows * height))
    for number, content in enumerate(contents):
        sheet.paste(open_image(content).convert("RGB"), (number % columns * width, number // columns * height))
    return _png(sheet, infotext_of(contents[0]))


def _png(picture: Image.Image, infotext: str = "") -> bytes:
    texts = PngInfo()
    if infotext:
        texts.add_itxt(INFOTEXT_KEY, infotext)
    return encode(picture, "PNG", pnginfo=texts)
