"""JPEG XL, which a plug-in of Pillow reads and writes: the extra `jxl`."""

from __future__ import annotations

import importlib

from PIL import Image

from seesr.images.boxes import boxes

JXL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
"""First bytes of a codestream and of a container."""


def enable_jpeg_xl() -> bool:
    """Makes the format known to Pillow; False where the extra is not installed."""
    try:
        importlib.import_module("pillow_jxl")
    except ImportError:
        return False
    return True


def xmp_of_jpeg_xl(image: Image.Image) -> bytes | None:
    """The XMP of a JPEG XL that the plug-in opened, which does not read it; None where there is none.

    It is a box of the container (ISO/IEC 18181-2); one that is compressed (`brob`) is not read.
    """
    content = getattr(image, "fc", b"") if image.format == "JXL" else b""
    if not content.startswith(JXL_SIGNATURES[1]):
        return None
    return next((content[body:end] for kind, body, end in boxes(content) if kind == b"xml "), None)
