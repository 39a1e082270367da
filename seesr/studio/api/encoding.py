"""Pictures as answers hold them."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image


def to_base64(content: bytes) -> str:
    """A file in base64 alone."""
    return base64.b64encode(content).decode()


def encode(picture: Image.Image, format: str, **params: Any) -> bytes:
    """The file of a picture, in a format of Pillow's and with its parameters."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **params)
    return buffer.getvalue()
