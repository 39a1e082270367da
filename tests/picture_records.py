"""Pictures for tests of the gallery, as rows and as files."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from seesr.jobs import content_hash
from seesr.studio.records import PictureRecord
from seesr.studio.studio import Studio


def picture_of(user: str, content: bytes = b"a picture", **values: Any) -> PictureRecord:
    """The record of a picture without a job; `values` take the place of others."""
    about = {
        "id": uuid.uuid4().hex,
        "job": None,
        "user": user,
        "index": 0,
        "created": datetime.now(UTC),
        "width": 64,
        "height": 64,
        "media_type": "image/png",
        "size": len(content),
        "digest": content_hash(content),
    }
    return PictureRecord(**about | values)


def add_picture(studio: Studio, user: str, colour: str = "grey", **values: Any) -> tuple[PictureRecord, bytes]:
    """A picture of one colour in a studio, and its file."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    record = picture_of(user, buffer.getvalue(), **values)
    studio.files.put_output(record.id, record.created, record.media_type, buffer.getvalue())
    studio.store.add_picture(record)
    return record, buffer.getvalue()
