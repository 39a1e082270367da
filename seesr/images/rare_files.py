"""TIFF files beyond what Pillow reads by itself: which page is the picture, cameras' raw files, rare kinds of samples."""

from __future__ import annotations

import ctypes
import io
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import COMPRESSION, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, TiffImageFile

from seesr.debug import without_warnings
from seesr.errors import InputError
from seesr.notes import Notes

NEW_SUBFILE_TYPE, OLD_SUBFILE_TYPE, SUB_IFDS, DNG_VERSION = 254, 255, 330, 50706
REDUCED, MASK = 1, 4
"""Bits of NewSubfileType."""
OLD_REDUCED = 2
CFA, LINEAR_RAW, YCBCR = 32803, 34892, 6
MAX_PAGES = 64
"""Pages that are looked at for the picture."""
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RAW_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb")
"""Of Olympus, Panasonic, Fujifilm and Sigma; Canon's CR2 and CR3 are known by what follows."""
RARE_ERRORS = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError),
    *(RuntimeError, OverflowError, struct.error),
)
"""What tifffile and its decoders raise on damaged files."""
NEEDS = "pip install 'seesr[formats]'"


def is_raw(content: bytes) -> bool:
    """Whether a file says by its first bytes that it is a camera's raw file."""
    return content.startswith(RAW_SIGNATURES) or content[8:10] == b"CR" or content[4:12] == b"ftypcrx "


def needs_libtiff(image: Image.Image) -> bool:
    """Whether Pillow's own decoder would garble the file: what is not compressed, in planes or in YCbCr."""
    tags = getattr(image, "tag_v2", {})
    is_plain = tags.get(COMPRESSION, 1) == 1
    return is_plain and (tags.get(PLANAR_CONFIGURATION, 1) == 2 or tags.get(PHOTOMETRIC_INTERPRETATION) == YCBCR)


def seek_picture(image: TiffImageFile, notes: Notes) -> bool:
    """Goes to the first page that is no reduced copy and no mask; False where it is a camera's raw file."""
    tags = image.tag_v2
    if is_raw_tiff(image):
        return False
    if not is_reduced(image):
        return True
    if SUB_IFDS in tags and not getattr(image, "is_animated", False):
        return False  # as most cameras' raw files are made
    for page in range(1, MAX_PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        if not is_reduced(image):
            notes.add(f"page {page + 1} is used, for those before it are reduced copies or masks")
            return True
    image.seek(0)
    if SUB_IFDS in tags:
        return False
    notes.add("the file says that it holds a reduced copy of a picture, but holds no other")
    return True


def is_raw_tiff(image: TiffImageFile) -> bool:
    """Whether a TIFF is a camera's raw file by the tags of its first page."""
    tags = image.tag_v2
    return DNG_VERSION in tags or tags.get(PHOTOMETRIC_INTERPRETATION) in (CFA, LINEAR_RAW)


def is_reduced(image: TiffImageFile) -> bool:
    """Whether the page of a TIFF is a reduced copy of another, or a mask."""
    kind = image.tag_v2.get(NEW_SUBFILE_TYPE)
    if isinstance(kind, int):
        return bool(kind & (REDUCED | MASK))
    return image.tag_v2.get(OLD_SUBFILE_TYPE) == OLD_REDUCED


@contextmanager
def silent_libtiff() -> Iterator[None]:
    """Keeps libtiff, which Pillow brings along, from writing what is wrong with a file to standard error by itself."""
    # A library's handle also finds the functions of those that it needs.
    libraries = ctypes.CDLL(Image.core.__file__)
    before = []
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if (set_handler := getattr(libraries, name, None)) is not None:
            set_handler.restype, set_handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            before.append((set_handler, set_handler(None)))
    try:
        yield
    finally:
        for set_handler, handler in before:
            set_handler(handler)


def develop_raw(content: bytes, name: str, notes: Notes) -> Image.Image:
    """A camera's raw file as sRGB, upright, with the camera's white balance.

    Raises:
        InputError: the extra `formats` is not installed, or LibRaw cannot read the file.
    """
    try:
        import rawpy
    except ImportError:
        raise InputError(f"{name} is a camera's raw file; {NEEDS} to read it, or convert it to TIFF or JPEG.") from None
    try:
        with rawpy.imread(io.BytesIO(content)) as raw:
            pixels = raw.postprocess(use_camera_wb=True)
    except rawpy.LibRawError as error:
        raise InputError(f"{name} is a camera's raw file that LibRaw cannot read ({error}); convert it to TIFF.") from error
    notes.add("the camera's raw file was developed by LibRaw with its usual settings")
    return Image.fromarray(pixels)


class RareTiff:
    """A page of a TIFF, by default the first, that Pillow does not know, such as one of floating point RGB.

    Raises:
        InputError: the extra `formats` is not installed, or the file is of a kind that nothing here reads.
    """

    def __init__(self, content: bytes, name: str, page: int = 0) -> None:
        try:
            import tifffile
        except ImportError:
            raise InputError(f"{name} is a TIFF of a kind that Pillow does not read; {NEEDS} to read it.") from None
        self.name = name
        with self._errors():
            self._page = tifffile.TiffFile(io.BytesIO(content)).pages[page].aspage()
            self.size = int(self._page.imagewidth), int(self._page.imagelength)  # a damaged file can have several
            known = self._page.photometric in (0, 1, 2) and self._page.dtype is not None and self._page.dtype.kind in "uf"
        if not known:
            kind = getattr(self._page.photometric, "name", "an unknown colour space")
            samples = f"{self._page.samplesperpixel} {self._page.dtype} samples a pixel, {kind}"
            raise InputError(f"{name} is a TIFF of {samples}, which is not read; convert it to RGB of 8 or 16 bits.")

    def samples(self) -> np.ndarray:
        """`(H, W)` or `(H, W, channels)`, 0 black."""
        with self._errors():
            samples = self._page.asarray()
        if self._page.planarconfig == 2 and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, -1)
        return samples.max() - samples if self._page.photometric == 0 else samples

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with without_warnings("tifffile", logging.CRITICAL):
                yield
        except RARE_ERRORS as error:
            raise InputError(f"{self.name} is a damaged TIFF, or of a kind that is not read ({error}).") from error
