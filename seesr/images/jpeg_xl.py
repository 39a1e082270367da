"""JPEG XL, which a plug-in of Pillow reads and writes: the extra `jxl`."""

from __future__ import annotations

import importlib

JXL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
"""First bytes of a codestream and of a container."""


def enable_jpeg_xl() -> bool:
    """Makes the format known to Pillow; False where the extra is not installed."""
    try:
        importlib.import_module("pillow_jxl")
    except ImportError:
        return False
    return True
