"""Input and output files of a command, which are checked before any work."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seesr.errors import InputError, OutputError, SeeSRError
from seesr.images.read import PICTURE_SUFFIXES
from seesr.images.save import pillow_format

SKIPPED_FOLDERS = {"@eaDir", "@tmp", "@__thumb", "@Recycle", "@Recently-Snapshot", "#recycle"}
"""Folders in which network drives keep thumbnails and deleted files."""


@dataclass(frozen=True)
class FileJob:
    """One picture to upscale."""

    source: Path
    target: Path
    comparison: Path | None = None
    """File for bicubic and result side by side, if there is one."""

    @property
    def outputs(self) -> list[Path]:
        """The files that this job writes."""
        return [self.target] if self.comparison is None else [self.target, self.comparison]


def plan_jobs(
    inputs: list[str],
    output: Path,
    recursive: bool,
    overwrite: bool,
    skip_existing: bool,
    output_format: str | None = None,
    compare: bool = False,
) -> list[FileJob]:
    """The jobs for `inputs` (files, folders, glob patterns).

    `output` is a folder if it exists as one, if it has no suffix, if an input is a folder, or if there are several pictures;
    results are then named
    `<stem>.png` or `<stem>.<output_format>`. With `compare` each job also writes `<stem>_compare.png` next to its result.

    Raises:
        InputError: an input does not exist, cannot be accessed, or is a pipe, which cannot be read twice for a comparison.
        OutputError: two results have the same name, a result would replace an input or an existing file, its suffix is
            unknown or does not match `output_format`, or its folder is not writable.
    """
    with _os_errors_as(InputError, "read"):
        sources = [source for argument in inputs for source in _expand(argument, recursive, output)]
        for source, _ in sources:
            if compare and not source.is_file():
                raise InputError(f"{source} is not a regular file, so --compare cannot read it again; leave out --compare.")
    with _os_errors_as(OutputError, "written"):
        folders = [Path(argument) for argument in inputs if Path(argument).is_dir()]
        into_folder = len(sources) > 1 or output.is_dir() or not output.suffix or bool(folders)
        if into_folder and output.is_file():
            raise OutputError(f"{output} is a file; give a folder for {len(sources)} pictures.")
        if any(folder.resolve() == output.resolve() for folder in folders):
            raise OutputError(
                f"{output} is an input itself, and results would be inputs of the next run; give another folder."
            )
        if output_format and not into_folder:
            _check_suffix(output, output_format)
        suffix = f".{output_format or 'png'}"
        jobs = []
        for source, relative in sources:
            target = output / relative.with_suffix(suffix) if into_folder else output
            jobs.append(FileJob(source, target, target.with_name(f"{target.stem}_compare.png") if compare else None))
        _check_outputs(jobs)
        if skip_existing:
            jobs = [job for job in jobs if not job.target.exists()]
        if not overwrite:
            _refuse_existing([job.target for job in jobs], "use --overwrite or --skip-existing")
            if not skip_existing:  # else an interrupted run may have left them: they are written before results
                comparisons = [path for job in jobs for path in job.outputs[1:]]
                _refuse_existing(comparisons, "use --overwrite, or leave out --compare")
        for folder in dict.fromkeys(Path(os.path.realpath(job.target)).parent for job in jobs):
            _require_writable(folder)
        return jobs


def plan_outputs(output: Path, stem: str, count: int, output_format: str | None, overwrite: bool) -> list[Path]:
    """The files of `count` pictures that are made: `output`, or in a folder `stem`; with the number of each if several.

    Raises:
        OutputError: a file exists, its suffix is unknown or does not match `output_format`, or its folder is not writable.
    """
    suffix = f".{output_format or 'png'}"
    with _os_errors_as(OutputError, "written"):
        if output.is_dir() or not output.suffix:
            first = output / f"{stem}{suffix}"
        else:
            _check_suffix(output, output_format)
            first = output
        numbers = [""] if count == 1 else [f"-{number + 1}" for number in range(count)]
        paths = [first.with_name(f"{first.stem}{number}{first.suffix}") for number in numbers]
        if not overwrite:
            _refuse_existing(paths, "use --overwrite")
        _require_writable(first.parent)
    return paths


def _check_suffix(output: Path, output_format: str | None) -> None:
    if pillow_format(output) != pillow_format(Path(f"x.{output_format}") if output_format else output):
        raise OutputError(f"{output} does not match --format {output_format}; change one or leave out --format.")


@contextmanager
def _os_errors_as(error_type: type[SeeSRError], action: str) -> Iterator[None]:
    """Raises an OSError about a path as `error_type`."""
    try:
        yield
    except OSError as error:
        raise error_type(f"{error.filename} cannot be {action}: {error.strerror or error}.") from error


def _refuse_existing(paths: list[Path], advice: str) -> None:
    existing = [path for path in paths if path.exists()]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise OutputError(f"{existing[0]} exists{more}; {advice}.")


def _require_writable(folder: Path) -> None:
    """Checks a folder that may not exist yet, by its nearest existing parent."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written to: {existing} is not a writable folder; choose another output.")


def _expand(argument: str, recursive: bool, output: Path) -> list[tuple[Path, Path]]:
    """(file, path of its result below the output folder) of each picture of one input; `output` is not searched."""
    path = Path(argument)
    if path.is_dir():
        files = sorted(_pictures_in(path, recursive, output))
        if not files:
            raise InputError(f"{path} holds no picture{'' if recursive else '; use --recursive for its sub-folders'}.")
        return [(file, file.relative_to(path)) for file in files]
    if path.exists():
        return [(path, Path(path.name))]
    files = sorted(Path(name) for name in glob.glob(argument, recursive=recursive) if Path(name).is_file())
    if recursive and "**" in argument:
        files = [file for file in files if output.resolve() not in file.resolve().parents]
    if not files:
        raise InputError(f"{argument} does not exist.")
    return [(file, Path(file.name)) for file in files]


def _pictures_in(folder: Path, recursive: bool, exclude: Path) -> Iterator[Path]:
    """The pictures in `folder`, without those in the folder `exclude`.

    Skips linked and hidden folders, `SKIPPED_FOLDERS`, and the `._` files of macOS.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    excluded = exclude.resolve()
    for parent, folders, names in os.walk(folder, onerror=fail):
        visible = [name for name in folders if recursive and not name.startswith(".") and name not in SKIPPED_FOLDERS]
        folders[:] = [name for name in visible if Path(parent, name).resolve() != excluded]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith("._") and path.is_file():
                yield path


def _check_outputs(jobs: list[FileJob]) -> None:
    sources: dict[Path, Path] = {}
    collisions: list[tuple[Path, Path, Path]] = []
    input_ids = {_file_id(job.source) for job in jobs}
    for job in jobs:
        for path in job.outputs:
            pillow_format(path)
            if path in sources:
                collisions.append((sources[path], job.source, path))
            sources[path] = job.source
            if path.exists() and _file_id(path) in input_ids:
                raise OutputError(f"{path} is an input itself; choose another output.")
    if collisions:
        (first, second, path), count = collisions[0], len({pair[:2] for pair in collisions})
        more = f" ({count} such pairs)" if count > 1 else ""
        raise OutputError(f"{first} and {second} would both become {path}{more}; rename them or upscale them separately.")


def _file_id(path: Path) -> tuple[int, int]:
    """The same for all hard links and paths of one file."""
    status = path.stat()
    return status.st_dev, status.st_ino
