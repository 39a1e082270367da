"""Writes animations and pages frame by frame: memory holds one frame however many there are."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from seesr.errors import OutputError
from seesr.files import atomic_write
from seesr.images.frame_writers import ANIMATIONS, FrameWriter, OutputFrame, TiffWriter
from seesr.images.frames import FrameSequence
from seesr.images.save import Target, pillow_format, resolve_target, save
from seesr.notes import Notes
from seesr.options import SaveOptions

MAX_FILE = 2**32 - 1
"""Bytes to which a TIFF and a WebP can point."""


@contextmanager
def write_frames(
    target: Target,
    sequence: FrameSequence,
    options: SaveOptions | None = None,
    name: str | None = None,
    notes: Notes | None = None,
) -> Iterator[FrameWriter]:
    """Yields a writer of all frames to `target`, which is moved into place, or to an open file, after the block succeeded.

    Of one frame the file is that of `save`, except as GIF. Pages go into a TIFF only; an animation into PNG (APNG), WebP,
    GIF, or the pages of a TIFF, which holds no durations.

    Args:
        target: as of `save`.
        sequence: of the input.
        name: the name of the file in error messages; by default its path.
        notes: gets what of the metadata the format does not hold.

    Raises:
        OutputError: the format does not hold the frames, or the file cannot be written. A file that was there before stays.
        OptionError: of an open file the format is not given.
    """
    options = options or SaveOptions()
    path, stream = resolve_target(target, options)
    name, notes = name or str(path), Notes() if notes is None else notes
    image_format = pillow_format(path, all_frames=True)
    _check_format(image_format, sequence, name)
    try:
        if stream is not None:
            with tempfile.TemporaryFile() as file:  # what was written is changed at the end, which a pipe does not allow
                yield from _writing(file, image_format, path, sequence, options, name, notes)
                file.seek(0)
                shutil.copyfileobj(file, stream)
        else:
            with atomic_write(path) as temporary, temporary.open("r+b") as file:
                yield from _writing(file, image_format, path, sequence, options, name, notes)
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {error.strerror or error}.") from error


def _writing(
    file: IO[bytes],
    image_format: str,
    path: Path,
    sequence: FrameSequence,
    options: SaveOptions,
    name: str,
    notes: Notes,
) -> Iterator[FrameWriter]:
    if sequence.count == 1 and image_format != "GIF":
        one_options = options.model_copy(update={"format": path.suffix[1:].lower()})
        one: FrameWriter = _OnePicture(file, one_options, name, notes)
    else:
        one = {**ANIMATIONS, "TIFF": TiffWriter}[image_format](file, sequence, options, notes)
    writer = _Checked(one, image_format, file, name)
    yield writer
    writer.close()


def _check_format(image_format: str, sequence: FrameSequence, name: str) -> None:
    if sequence.count == 1 or image_format == "TIFF":
        return
    if sequence.kind == "pages":
        raise OutputError(
            f"{name}: {image_format} holds one picture, and the input has {sequence.count} pages; "
            "write TIFF, or take the first page alone."
        )
    if image_format not in ANIMATIONS:
        raise OutputError(
            f"{name}: {image_format} holds one picture, and the input has {sequence.count} frames; "
            "write PNG, WebP or GIF, or take the first frame alone."
        )


class _Checked:
    """A writer whose errors are sentences."""

    def __init__(self, writer: FrameWriter, image_format: str, file: IO[bytes], name: str) -> None:
        self.writer, self.image_format, self.file, self.name = writer, image_format, file, name

    def add(self, frame: OutputFrame) -> None:
        try:
            self.writer.add(frame)
            too_large = self.image_format in ("TIFF", "WEBP") and self.file.tell() > MAX_FILE
        except struct.error:  # a number that does not fit into 32 bits
            too_large = True
        except (ValueError, RuntimeError) as error:  # WebP raises these where a side is too long for the format
            size = f"{frame.image.width}x{frame.image.height}"
            raise OutputError(f"{self.name} cannot be written as {self.image_format} of {size}: {error}.") from error
        if too_large:
            raise OutputError(f"{self.name} is larger than {MAX_FILE:,} bytes, {self.image_format}'s limit; take fewer.")

    def close(self) -> None:
        self.writer.close()


class _OnePicture:
    """The one frame of an input, as `save` writes it."""

    def __init__(self, file: IO[bytes], options: SaveOptions, name: str, notes: Notes) -> None:
        self.file, self.options, self.name, self.notes = file, options, name, notes

    def add(self, frame: OutputFrame) -> None:
        saved = save(
            frame.image, self.file, self.options, frame.settings, self.name, metadata=frame.metadata, deep=frame.deep
        )
        self.notes.add(*saved)

    def close(self) -> None:
        pass
