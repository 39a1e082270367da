"""Takes pictures of a folder into the gallery, with the settings that stand in them: SeeSR's own, or A1111's infotext."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from seesr.errors import InputError
from seesr.generation.infotext import Infotext
from seesr.generation.like import values_from_infotext
from seesr.images.encoded import PICTURE_SUFFIXES, EncodedImage, load_image
from seesr.images.metadata import read_infotext, read_settings
from seesr.jobs import MEDIA_TYPES, content_hash
from seesr.options import Limits
from seesr.studio.files import FileStore
from seesr.studio.records import PictureRecord
from seesr.studio.store import Store


@dataclass(frozen=True)
class ImportedFile:
    """What became of a file."""

    path: Path
    picture: PictureRecord | None = None
    """None of one that is not taken."""
    reason: str = ""
    """Why it is not, in one sentence; empty where the user has it already."""


def import_folder(
    store: Store, files: FileStore, folder: Path, user: str, limits: Limits, board: str | None = None
) -> Iterator[ImportedFile]:
    """Takes the pictures of a folder and of those in it, the oldest first; files stay as they are, byte by byte.

    What the user has already is left out, so that an import may be repeated. Pictures keep the date of their files.

    Args:
        board: id of a board of the user's, on which they come.

    Raises:
        FullDiskError, StorageError: nothing is taken of the file at which it happened.
    """
    for path in _picture_files(folder):
        try:
            content = EncodedImage.read(path, limits).content
            if store.has_picture(user, content_hash(content)):
                yield ImportedFile(path)
                continue
            record = _record(path, content, user, limits)
        except InputError as error:
            yield ImportedFile(path, reason=str(error))
            continue
        files.put_output(record.id, record.created, record.media_type, content)
        store.add_picture(record)
        if board is not None:
            store.change_board(board, add=[record.id])
        yield ImportedFile(path, record)


def settings_in(image: Image.Image) -> dict[str, Any]:
    """The settings in a picture by the names of `Result.settings`; of an infotext also the text itself, as `infotext`."""
    settings, infotext = read_settings(image), read_infotext(image)
    if settings is not None:
        return settings
    if infotext is None:
        return {}
    parameters = Infotext.parse(infotext).parameters
    pairs = (pair.partition(":") for pair in parameters.get("Lora hashes", "").split(",") if ":" in pair)
    hashes = {name.strip(): digest.strip() for name, _, digest in pairs}
    named = {"weights": parameters.get("Model"), "weights_digest": parameters.get("Model hash"), "loras": hashes or None}
    known = {name: value for name, value in named.items() if value is not None}
    return values_from_infotext(infotext) | known | {"infotext": infotext}


def _picture_files(folder: Path) -> list[Path]:
    """Files of a folder and its folders by their suffix, the oldest first; what begins with a dot is left out."""
    paths = list[tuple[float, Path]]()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found = [Path(place, name) for name in names if not name.startswith(".")]
        pictures = [path for path in found if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()]
        paths += [(path.stat().st_mtime, path) for path in pictures]
    return [path for _, path in sorted(paths)]


def _record(path: Path, content: bytes, user: str, limits: Limits) -> PictureRecord:
    image = load_image(EncodedImage(content, str(path)), limits)  # decoded, so that it is whole
    media_type = Image.MIME.get(image.format or "", "")
    if media_type not in MEDIA_TYPES.values():
        raise InputError(f"{path} is {image.format}, which browsers do not show; convert it to PNG first.")
    return PictureRecord(
        id=uuid.uuid4().hex,
        job=None,
        user=user,
        index=0,
        created=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        width=image.width,
        height=image.height,
        media_type=media_type,
        size=len(content),
        digest=content_hash(content),
        settings=settings_in(image),
    )
