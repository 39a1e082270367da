"""From what stands on the command line to a list of pictures and where each result goes."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from seesr.errors import InputError, OutputError
from seesr.images.save import output_format

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif"}
"""What is taken from folders; a file named by the user is tried whatever its name."""


@dataclass(frozen=True)
class Job:
    """One picture to upscale."""

    source: Path
    target: Path


def plan_jobs(
    inputs: list[str],
    output: Path,
    recursive: bool,
    overwrite: bool,
    skip_existing: bool,
    wanted_format: str | None = None,
) -> list[Job]:
    """What to do for `inputs` (files, folders, patterns), checked before any work.

    A folder as `output` (one that exists, one that ends in a slash, or any for several pictures) gets `<stem>.png`, or
    `<stem>.<wanted_format>`.

    Raises:
        InputError: an input names nothing.
        OutputError: two results would get one name, a file exists already, its suffix is not known or is not that of
            the format asked for.
    """
    found = [item for text in inputs for item in _expand(text, recursive)]
    into_folder = len(found) > 1 or output.is_dir() or not output.suffix or any(Path(text).is_dir() for text in inputs)
    if into_folder and output.is_file():
        raise OutputError(f"{output} is a file; give a folder for {len(found)} pictures.")
    if wanted_format and not into_folder and output_format(output) != output_format(Path(f"x.{wanted_format}")):
        raise OutputError(f"{output} is no name for format {wanted_format}; change one or leave out --format.")
    suffix = f".{wanted_format or 'png'}"
    jobs = []
    for source, inside in found:
        jobs.append(Job(source, output / inside.with_suffix(suffix) if into_folder else output))
    _check_targets(jobs)
    if skip_existing:
        return [job for job in jobs if not job.target.exists()]
    if not overwrite:
        taken = [job.target for job in jobs if job.target.exists()]
        if taken:
            more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
            raise OutputError(f"{taken[0]} exists{more}; use --overwrite or --skip-existing.")
    return jobs


def _expand(text: str, recursive: bool) -> list[tuple[Path, Path]]:
    """(file, its name inside the output folder) for one input."""
    path = Path(text)
    if path.is_dir():
        pattern = "**/*" if recursive else "*"
        files = sorted(item for item in path.glob(pattern) if item.is_file() and item.suffix.lower() in PICTURE_SUFFIXES)
        if not files:
            raise InputError(f"{path} holds no picture{'' if recursive else '; use --recursive for its sub-folders'}.")
        return [(file, file.relative_to(path)) for file in files]
    if path.exists():
        return [(path, Path(path.name))]
    files = sorted(Path(name) for name in glob.glob(text, recursive=recursive) if Path(name).is_file())
    if not files:
        raise InputError(f"{text} does not exist.")
    return [(file, Path(file.name)) for file in files]


def _check_targets(jobs: list[Job]) -> None:
    first: dict[Path, Path] = {}
    for job in jobs:
        output_format(job.target)
        if job.target in first:
            raise OutputError(f"{first[job.target]} and {job.source} would both become {job.target}; upscale them apart.")
        first[job.target] = job.source
        if job.target.exists() and job.target.samefile(job.source):
            raise OutputError(f"{job.target} is the input itself; choose another output.")
