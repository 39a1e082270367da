"""From what stands on the command line to a list of pictures and where each result goes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seesr.errors import InputError, OutputError, SeeSRError
from seesr.images.read import PICTURE_SUFFIXES
from seesr.images.save import output_format

PASSED_OVER = {"@eaDir", "@tmp", "@__thumb", "@Recycle", "@Recently-Snapshot", "#recycle"}
"""Network drives' folders of thumbnails and of what was deleted."""


@dataclass(frozen=True)
class Job:
    """One picture to upscale."""

    source: Path
    target: Path
    comparison: Path | None = None
    """Where a picture of before and after goes, if there is one."""

    @property
    def made(self) -> list[Path]:
        """The files that come of it."""
        return [self.target] if self.comparison is None else [self.target, self.comparison]


def plan_jobs(
    inputs: list[str],
    output: Path,
    recursive: bool,
    overwrite: bool,
    skip_existing: bool,
    wanted_format: str | None = None,
    compare: bool = False,
) -> list[Job]:
    """What to do for `inputs` (files, folders, patterns), checked before any work.

    A folder as `output` (one that exists, one without a suffix, or any for several pictures) gets `<stem>.png`, or
    `<stem>.<wanted_format>`; with `compare` there is `<stem>_compare.png` beside each result.

    Raises:
        InputError: an input names nothing, cannot be looked at, or is a pipe, which a comparison would read again.
        OutputError: two results would get one name, one would take an input's place, a file exists already, its suffix
            is not known or is not that of the format asked for, or its folder may not be written to.
    """
    with _told_as(InputError, "read"):
        found = [item for text in inputs for item in _expand(text, recursive, output)]
        for source, _ in found:
            if compare and not source.is_file():
                raise InputError(f"{source} is not a file, which --compare would read again; leave out --compare.")
    with _told_as(OutputError, "written"):
        into_folder = len(found) > 1 or output.is_dir() or not output.suffix or any(Path(text).is_dir() for text in inputs)
        if into_folder and output.is_file():
            raise OutputError(f"{output} is a file; give a folder for {len(found)} pictures.")
        if any(Path(text).is_dir() and Path(text).resolve() == output.resolve() for text in inputs):
            raise OutputError(
                f"{output} is an input itself, and results would be inputs of the next run; give another folder."
            )
        if wanted_format and not into_folder and output_format(output) != output_format(Path(f"x.{wanted_format}")):
            raise OutputError(f"{output} is no name for format {wanted_format}; change one or leave out --format.")
        suffix = f".{wanted_format or 'png'}"
        jobs = []
        for source, inside in found:
            target = output / inside.with_suffix(suffix) if into_folder else output
            jobs.append(Job(source, target, target.with_name(f"{target.stem}_compare.png") if compare else None))
        _check_made(jobs)
        if skip_existing:
            jobs = [job for job in jobs if not job.target.exists()]
        if not overwrite:
            _refuse_existing([job.target for job in jobs], "use --overwrite or --skip-existing")
            if not skip_existing:  # else it is of a picture whose result was not finished
                _refuse_existing([path for job in jobs for path in job.made[1:]], "use --overwrite, or leave out --compare")
        for folder in dict.fromkeys(job.target.parent for job in jobs):
            _require_writable(folder)
        return jobs


@contextmanager
def _told_as(kind: type[SeeSRError], done: str) -> Iterator[None]:
    """What the system says of a path, in a sentence."""
    try:
        yield
    except OSError as error:
        raise kind(f"{error.filename} cannot be {done}: {error.strerror or error}.") from error


def _refuse_existing(paths: list[Path], way_out: str) -> None:
    taken = [path for path in paths if path.exists()]
    if taken:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise OutputError(f"{taken[0]} exists{more}; {way_out}.")


def _require_writable(folder: Path) -> None:
    """Of one that may have to be made first."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written to: {there} is not a folder that lets you; choose another output.")


def _expand(text: str, recursive: bool, output: Path) -> list[tuple[Path, Path]]:
    """(file, its name inside the output folder) for one input; what lies in its sub-folders, without the output folder."""
    path = Path(text)
    if path.is_dir():
        files = sorted(_pictures_in(path, recursive, output))
        if not files:
            raise InputError(f"{path} holds no picture{'' if recursive else '; use --recursive for its sub-folders'}.")
        return [(file, file.relative_to(path)) for file in files]
    if path.exists():
        return [(path, Path(path.name))]
    files = sorted(Path(name) for name in glob.glob(text, recursive=recursive) if Path(name).is_file())
    if recursive and "**" in text:
        files = [file for file in files if output.resolve() not in file.resolve().parents]
    if not files:
        raise InputError(f"{text} does not exist.")
    return [(file, Path(file.name)) for file in files]


def _pictures_in(folder: Path, recursive: bool, apart_from: Path) -> Iterator[Path]:
    """Not in folders that are links, hidden or `PASSED_OVER`, nor in the folder `apart_from`, nor macOS's `._` files.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    left_out = apart_from.resolve()
    for place, folders, names in os.walk(folder, onerror=fail):
        wanted = [name for name in folders if recursive and not name.startswith(".") and name not in PASSED_OVER]
        folders[:] = [name for name in wanted if Path(place, name).resolve() != left_out]
        for name in names:
            path = Path(place, name)
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith("._") and path.is_file():
                yield path


def _check_made(jobs: list[Job]) -> None:
    first: dict[Path, Path] = {}
    twice: list[tuple[Path, Path, Path]] = []
    inputs = {_identity(job.source) for job in jobs}
    for job in jobs:
        for path in job.made:
            output_format(path)
            if path in first:
                twice.append((first[path], job.source, path))
            first[path] = job.source
            if path.exists() and _identity(path) in inputs:
                raise OutputError(f"{path} is an input itself; choose another output.")
    if twice:
        (one, other, path), count = twice[0], len({pair[:2] for pair in twice})
        more = f" ({count} such pairs)" if count > 1 else ""
        raise OutputError(f"{one} and {other} would both become {path}{more}; rename them or upscale them apart.")


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of one file."""
    status = path.stat()
    return status.st_dev, status.st_ino
