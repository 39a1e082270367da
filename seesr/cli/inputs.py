"""Input and output files of a command, which are checked before any work."""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from seesr.cli.names import ResultNames
from seesr.errors import InputError, OutputError, SeeSRError
from seesr.files import atomic_write
from seesr.images.encoded import PICTURE_SUFFIXES, EncodedImage
from seesr.images.save import PILLOW_FORMATS, Writable, pillow_format
from seesr.options import Limits

SKIPPED_FOLDERS = {"@eaDir", "@tmp", "@__thumb", "@Recycle", "@Recently-Snapshot", "#recycle"}
"""Folders in which network drives keep thumbnails and deleted files."""
STANDARD = "-"
"""Standard input as an input, standard output as the output."""
ORIGINAL = ".orig"
"""What `--in-place` adds to the stem of an original that it keeps."""


STANDARD_INPUT = Path(STANDARD)
"""Stands for standard input by its identity: a file may have this name too, and is given as `./-`."""


@dataclass(frozen=True)
class FileJob:
    """One picture to upscale."""

    source: Path
    target: Path
    comparison: Path | None = None
    """File for bicubic and result side by side, if there is one."""
    content: EncodedImage | None = None
    """What was read from standard input."""
    stream: Writable | None = None
    """Standard output, which is written to in place of `target`."""
    in_place: bool = False
    """Whether `target` is the input itself."""
    original: Path | None = None
    """Where the input is kept that is replaced in place."""

    @property
    def image(self) -> Path | EncodedImage:
        """What is read."""
        return self.content or self.source

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
    names: ResultNames | None = None,
    all_frames: bool = False,
) -> list[FileJob]:
    """The jobs for `inputs` (files, folders, glob patterns, `-` for standard input).

    `output` is a folder if it exists as one, if it has no suffix, if an input is a folder, or if there are several pictures;
    results are then named by `names`, else `<stem>.png` or `<stem>.<output_format>`; `a.jpg` and `a.png` become
    `a_jpg.png` and `a_png.png`. With `compare` each job also writes `<stem>_compare.png` next to its result.

    Raises:
        InputError: an input does not exist, cannot be accessed, or is a pipe, which cannot be read twice for a comparison.
        OutputError: two results have the same name, `names` are given for a file, a result would replace an input or an
            existing file, its suffix is unknown or does not match `output_format`, or its folder is not writable.
    """
    if inputs.count(STANDARD) > 1:
        raise InputError("standard input (-) is given twice, and can be read once.")
    with _os_errors_as(InputError, "read"):
        sources = [source for argument in inputs for source in _expand(argument, recursive, output)]
        for source, _ in sources:
            if compare and not (source.is_file() and source is not STANDARD_INPUT):
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
        if names and not into_folder:
            raise OutputError(f"{output} is a file's name, and --name gives another; give a folder, or leave out --name.")
        relatives = [relative for _, relative in sources]
        targets = _targets(relatives, output, names or ResultNames(), output_format) if into_folder else [output]
        jobs = []
        for (source, _), target in zip(sources, targets, strict=True):
            _check_suffix(target, output_format, all_frames)
            jobs.append(FileJob(source, target, target.with_name(f"{target.stem}_compare.png") if compare else None))
        _check_outputs(jobs, all_frames)
        if skip_existing:
            jobs = [job for job in jobs if not job.target.exists()]
        if not overwrite:
            _refuse_existing([job.target for job in jobs], "use --overwrite or --skip-existing")
            if not skip_existing:  # else an interrupted run may have left them: they are written before results
                comparisons = [path for job in jobs for path in job.outputs[1:]]
                _refuse_existing(comparisons, "use --overwrite, or leave out --compare")
        for folder in dict.fromkeys(Path(os.path.realpath(job.target)).parent for job in jobs):
            _require_writable(folder)
    return _with_standard_input(jobs)


def plan_standard_output(inputs: list[str], output_format: str | None, all_frames: bool = False) -> list[FileJob]:
    """The job for one picture that is written to standard output.

    Raises:
        InputError: the input does not exist, or there are several.
        OutputError: standard output is a terminal, or its format cannot be written.
    """
    with _os_errors_as(InputError, "read"):
        sources = [source for argument in inputs for source, _ in _expand(argument, False, None)]
    if len(sources) > 1:
        raise InputError(f"standard output holds one picture, and there are {len(sources)} inputs; give a folder.")
    if sys.stdout.isatty():
        raise OutputError("standard output is a terminal; redirect it to a file or a program.")
    pillow_format(Path(f"standard output.{output_format or 'png'}"), all_frames)
    return _with_standard_input([FileJob(sources[0], Path("standard output"), stream=sys.stdout.buffer)])


def plan_in_place(
    inputs: list[str],
    recursive: bool,
    skip_existing: bool,
    output_format: str | None,
    keep_original: bool,
    all_frames: bool = False,
) -> list[FileJob]:
    """The jobs for `inputs` whose results replace them. An original is kept beside its result as `<stem>.orig<suffix>`.

    Originals that were kept are no inputs, except if they are named.

    Raises:
        InputError: an input does not exist, cannot be accessed, or is not a regular file.
        OutputError: an input was replaced before, is given twice, has a format that cannot be written or is not
            `output_format`, or its folder is not writable.
    """
    with _os_errors_as(InputError, "read"):
        named = {Path(argument) for argument in inputs}
        sources = [source for argument in inputs for source, _ in _expand(argument, recursive, None)]
        sources = [source for source in sources if source in named or not source.stem.endswith(ORIGINAL)]
        jobs = dict[tuple[int, int], FileJob]()
        for source in sources:
            if source is STANDARD_INPUT or not source.is_file():
                raise InputError(f"{source} is not a regular file, which --in-place could replace; give an output.")
            target = Path(os.path.realpath(source))
            if first := jobs.get(_file_id(target)):
                raise OutputError(f"{first.source} and {source} are the same file; give it once.")
            original = target.with_name(f"{target.stem}{ORIGINAL}{target.suffix}") if keep_original else None
            jobs[_file_id(target)] = FileJob(source, target, in_place=True, original=original)
    with _os_errors_as(OutputError, "written"):
        for job in jobs.values():
            suffixes = [*PILLOW_FORMATS, *([".gif"] if all_frames else [])]
            if job.target.suffix.lower() not in suffixes:
                kinds = ", ".join(suffixes)
                raise OutputError(f"{job.source} cannot be replaced: only {kinds} can be written; give an output.")
            _check_suffix(job.target, output_format, all_frames)
        done = [job for job in jobs.values() if job.original and job.original.exists() and not _is_begun(job)]
        if done and not skip_existing:
            advice = "use --skip-existing, or move it away to enlarge the result again"
            raise OutputError(f"{done[0].original} exists: {done[0].source} was replaced before; {advice}.")
        remaining = [job for job in jobs.values() if job not in done]
        for folder in dict.fromkeys(job.target.parent for job in remaining):
            _require_writable(folder)
    return remaining


def keep_input(job: FileJob) -> None:
    """Gives the input its second name, before the result takes its first.

    Raises:
        OSError: another file has that name, or it cannot be written.
    """
    if job.original is None or (job.original.exists() and _is_begun(job)):
        return
    try:
        os.link(job.target, job.original)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with atomic_write(job.original, job.target.stat().st_mode & 0o777) as temporary:
            shutil.copy2(job.target, temporary)


def _is_begun(job: FileJob) -> bool:
    """Whether the original has its second name already, but was not replaced: the command was interrupted between."""
    return job.original is not None and job.original.samefile(job.target)


def _targets(relatives: list[Path], output: Path, names: ResultNames, output_format: str | None) -> list[Path]:
    """The files of the results; those that would have one name get the suffixes of their inputs."""
    suffix = f".{output_format or 'png'}"
    targets = [output / relative.parent / names.name(relative, suffix) for relative in relatives]
    kinds = dict[Path, set[str]]()
    for relative, target in zip(relatives, targets, strict=True):
        kinds.setdefault(target, set()).add(relative.suffix)
    return [
        output / relative.parent / names.name(relative, suffix, with_source=len(kinds[target]) > 1)
        for relative, target in zip(relatives, targets, strict=True)
    ]


def _with_standard_input(jobs: list[FileJob]) -> list[FileJob]:
    """The jobs with the content of standard input.

    Raises:
        InputError: standard input is a terminal.
    """
    return [replace(job, content=_read_standard_input()) if job.source is STANDARD_INPUT else job for job in jobs]


def _read_standard_input() -> EncodedImage:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input is a terminal; redirect a picture to it.")
    # One byte beyond the limit, which is refused.
    return EncodedImage(sys.stdin.buffer.read(Limits.from_environment().input_bytes + 1), "standard input")


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


def _check_suffix(output: Path, output_format: str | None, all_frames: bool = False) -> None:
    if output_format and pillow_format(output, all_frames) != pillow_format(Path(f"x.{output_format}"), all_frames):
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


def _expand(argument: str, recursive: bool, output: Path | None) -> list[tuple[Path, Path]]:
    """(file, path of its result below the output folder) of each picture of one input; `output` is not searched."""
    if argument == STANDARD:
        return [(STANDARD_INPUT, Path("stdin"))]
    path = Path(argument)
    if path.is_dir():
        files = sorted(_pictures_in(path, recursive, output))
        if not files:
            raise InputError(f"{path} holds no picture{'' if recursive else '; use --recursive for its sub-folders'}.")
        return [(file, file.relative_to(path)) for file in files]
    if path.exists():
        return [(path, Path(path.name))]
    files = _matching(argument, recursive)
    if recursive and "**" in argument and output is not None:
        files = [file for file in files if output.resolve() not in file.resolve().parents]
    if not files:
        raise InputError(f"{argument} does not exist.")
    return [(file, Path(file.name)) for file in files]


def _matching(pattern: str, recursive: bool) -> list[Path]:
    """The files that match. A folder that exists is meant literally, brackets too; `*.jpg` finds `B.JPG` too."""
    parts = Path(pattern).parts
    known = max(count for count in range(len(parts)) if count == 0 or Path(*parts[:count]).is_dir())
    rest = os.path.join("", *parts[known:])
    if suffix := re.search(r"\.\w+$", rest):
        rest = rest[: suffix.start()] + "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in suffix[0])
    folder = os.path.join(glob.escape(str(Path(*parts[:known]))), "") if known else ""
    for spelling in (rest, re.sub(r"\[(?=[^/]*/)", "[[]", rest)):
        if files := sorted(Path(name) for name in glob.glob(folder + spelling, recursive=recursive) if Path(name).is_file()):
            return files
    return []


def _pictures_in(folder: Path, recursive: bool, exclude: Path | None) -> Iterator[Path]:
    """The pictures in `folder`, without those in the folder `exclude`.

    Skips linked and hidden folders, `SKIPPED_FOLDERS`, and the `._` files of macOS.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    excluded = exclude.resolve() if exclude is not None else None
    for parent, folders, names in os.walk(folder, onerror=fail):
        visible = [name for name in folders if recursive and not name.startswith(".") and name not in SKIPPED_FOLDERS]
        folders[:] = [name for name in visible if Path(parent, name).resolve() != excluded]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith("._") and path.is_file():
                yield path


def _check_outputs(jobs: list[FileJob], all_frames: bool) -> None:
    sources: dict[Path, Path] = {}
    collisions: list[tuple[Path, Path, Path]] = []
    input_ids = {_file_id(job.source) for job in jobs if job.source is not STANDARD_INPUT}
    for job in jobs:
        for path in job.outputs:
            pillow_format(path, all_frames)
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
