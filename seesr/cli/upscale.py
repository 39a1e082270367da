"""`seesr upscale`: upscales files; a failure of one of several is reported at once, and the others are still upscaled."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seesr.cli.console import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    discard_standard_output,
    load_upscaler,
    print_record,
    print_status,
    progress_bars,
)
from seesr.cli.flags import (
    DeviceFlag,
    DtypeFlag,
    JsonFlag,
    MemoryLimitFlag,
    WeightsFlag,
    with_option_flags,
    with_read_option_flags,
    with_save_option_flags,
)
from seesr.cli.inputs import STANDARD, FileJob, keep_input, plan_in_place, plan_jobs, plan_standard_output
from seesr.cli.names import FIELDS, ResultNames
from seesr.debug import is_debugging
from seesr.errors import OptionError, OutputError, SeeSRError
from seesr.images.read import FIRST_FRAME
from seesr.images.save import Writable, check_bits, save
from seesr.notes import Notes
from seesr.options import Options, ReadOptions, SaveOptions

if TYPE_CHECKING:
    from PIL import Image

    from seesr.result import UpscaledFrames, UpscaleResult
    from seesr.stages import Progress
    from seesr.upscaler import Upscaler

UNWRITABLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Disk full, quota exceeded, read-only: further pictures cannot be written either."""


@with_option_flags()
@with_read_option_flags
@with_save_option_flags
def upscale(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Pictures, folders, quoted glob patterns, or - for standard input."),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="<path>", help="File, folder for several pictures, or - for standard output."
        ),
    ] = None,
    *,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace each input by its result.")] = False,
    keep_original: Annotated[
        bool, typer.Option(help="With --in-place: keep each input as NAME.orig.SUFFIX beside its result.")
    ] = True,
    name: Annotated[
        str | None,
        typer.Option(metavar="<template>", help=f"Names of results in a folder; fields: {' '.join(FIELDS)}, in braces."),
    ] = None,
    recursive: Annotated[bool, typer.Option(help="Look into sub-folders too.")] = False,
    options: Options,
    memory_limit: MemoryLimitFlag = None,
    sequential: Annotated[
        bool, typer.Option(help="Keep only the running network on the device; on a CPU, in memory.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the networks' blocks at their first run; it pays for many pictures.")
    ] = False,
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    weights: WeightsFlag = None,
    read_options: ReadOptions,
    save_options: SaveOptions,
    overwrite: Annotated[bool, typer.Option(help="Replace output files that exist.")] = False,
    skip_existing: Annotated[bool, typer.Option(help="Skip pictures whose output file exists.")] = False,
    as_json: JsonFlag = False,
    compare: Annotated[bool, typer.Option(help="Also save bicubic and result side by side.")] = False,
) -> None:
    """Upscale pictures."""
    names = ResultNames.of(name, options) if name is not None else None
    all_frames = read_options.frames == "all"
    if all_frames:
        _refuse_beside("--frames all", compare=compare)
    if in_place:
        _refuse_beside("--in-place", output=output, overwrite=overwrite, compare=compare, name=name)
        jobs = plan_in_place(inputs, recursive, skip_existing, save_options.format, keep_original, all_frames)
    elif output == STANDARD:
        _refuse_beside(
            "--output -", overwrite=overwrite, skip_existing=skip_existing, compare=compare, name=name, json=as_json
        )
        jobs = plan_standard_output(inputs, save_options.format, all_frames)
    elif output is None:
        raise OptionError("give --output, or --in-place.")
    else:
        existing = recursive, overwrite, skip_existing
        jobs = plan_jobs(inputs, Path(output), *existing, save_options.format, compare, names, all_frames)
    if not jobs:
        print_status("nothing to do: every output exists.")
        return
    for job in jobs:
        suffix = job.target.suffix if job.stream is None else f".{save_options.format or 'png'}"
        check_bits(job.target.with_suffix(suffix), options.bits)
    upscaler = load_upscaler(context, weights, device, dtype, memory_limit, sequential, compiled)
    done, failures = 0, list[str]()
    try:
        with _progress(len(jobs)) as progress_for:
            if all_frames:
                results = _open_each(upscaler, jobs, options, progress_for)
            else:
                results = _upscale_each(upscaler, jobs, upscaler.engine.preferred_batch, options, progress_for)
            for job, result in results:
                try:
                    if isinstance(result, Exception):
                        raise result
                    result = _write(job, result, save_options, overwrite)
                except Exception as error:  # reported, and the other pictures are still upscaled
                    if len(jobs) == 1:
                        raise
                    failures.append(_report_failure(job, error, as_json))
                    result = None  # a result keeps images in memory, and an error by its traceback tensors
                    if getattr(error.__cause__, "errno", None) in UNWRITABLE_ERRNOS:
                        break
                else:
                    done += 1
                    _report(job, result, as_json, all_frames)
    except KeyboardInterrupt:
        print_status("interrupted; finished pictures are complete.")
        _print_failures(failures, done, len(jobs))
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if failures:
        _print_failures(failures, done, len(jobs))
        if untried := len(jobs) - done - len(failures):
            print_status(f"  {untried} were not tried, because they could not be written either.")
        raise typer.Exit(EXIT_SOME_FAILED if done else EXIT_FAILED)


def _upscale_each(
    upscaler: Upscaler,
    jobs: list[FileJob],
    batch_size: int,
    options: Options,
    progress_for: Callable[[list[FileJob]], Progress],
) -> Iterator[tuple[FileJob, UpscaleResult | Exception]]:
    """Each job with its result or error. Jobs run in batches; if a batch fails, its jobs run again one by one."""
    for first in range(0, len(jobs), batch_size):
        batch = jobs[first : first + batch_size]
        try:
            results = upscaler.upscale_many([job.image for job in batch], options, progress=progress_for(batch))
        except Exception as error:  # noqa: BLE001  # raised again by the caller
            if len(batch) == 1:
                yield batch[0], error
                continue
            if is_debugging():
                traceback.print_exc()
        else:
            yield from zip(batch, results, strict=True)
            continue
        # Outside the `except` block, so that the error no longer keeps tensors alive.
        yield from _upscale_each(upscaler, batch, 1, options, progress_for)


def _open_each(
    upscaler: Upscaler, jobs: list[FileJob], options: Options, progress_for: Callable[[list[FileJob]], Progress]
) -> Iterator[tuple[FileJob, UpscaledFrames | Exception]]:
    """Each job with its frames, which are upscaled when they are written, or its error."""
    for job in jobs:
        try:
            frames = upscaler.upscale_frames(job.image, options, progress_for([job]))
        except Exception as error:  # noqa: BLE001  # raised again by the caller
            yield job, error
        else:
            yield job, frames


def _report_failure(job: FileJob, error: Exception, as_json: bool) -> str:
    """Reports the failure of one of several pictures at once, since the run may take hours; returns its message."""
    message = str(error) if isinstance(error, SeeSRError) else f"internal error ({type(error).__name__}: {error})."
    if not any(str(path) in message for path in (job.source, job.target)):
        message = f"{job.source}: {message}"
    print_status(f"failed: {message}")
    if is_debugging():
        traceback.print_exception(error)
    if as_json:
        print_record({"input": str(job.source), "error": message})
    return message


def _print_failures(failures: list[str], done: int, total: int) -> None:
    if failures:
        print_status(f"{done} of {total} pictures done; {len(failures)} failed:")
    for failure in failures:
        print_status(f"  {failure}")


def _report(job: FileJob, result: UpscaleResult, as_json: bool, all_frames: bool) -> None:
    if as_json:
        print_record({"input": str(job.source), "output": str(job.target), **result.record()})
        return
    width, height = result.sizes.output
    notes = list(result.notes)
    if FIRST_FRAME in notes and not all_frames:
        notes.append("--frames all takes all of them")
    if result.attempts:
        plans = ", ".join(attempt.rung for attempt in result.attempts)
        notes.append(f"memory did not suffice for {plans}; the memory plan {result.rung} was used")
    suffix = "".join(f"; {note}" for note in notes)
    frames = f", {result.frames} frames" if result.frames > 1 else ""
    print_status(f"{job.target}: {width}x{height}{frames}, seed {result.seed}, {sum(result.seconds.values()):.1f} s{suffix}")


def _write(job: FileJob, result: UpscaleResult | UpscaledFrames, options: SaveOptions, overwrite: bool) -> UpscaleResult:
    """Writes the result, and before it the comparison and the original's second name; frames are upscaled meanwhile.

    The result comes last, because --skip-existing takes it as done.

    Returns:
        The result, of frames that of all of them.
    """
    from seesr.result import UpscaledFrames

    if job.stream is not None:
        return _write_to(job.stream, result, options)
    _refuse_created(job, overwrite)
    if isinstance(result, UpscaledFrames):
        with result.save_on_success(job.target, options) as summary:
            _refuse_created(job, overwrite)
            if job.in_place:
                keep_input(job)
        return summary
    with result.save_on_success(job.target, options):
        if job.comparison is not None:
            save(_comparison(result), job.comparison)
        if job.in_place:
            keep_input(job)
    return result


def _refuse_created(job: FileJob, overwrite: bool) -> None:
    if job.target.exists() and not (overwrite or job.in_place):
        raise OutputError(f"{job.target} was created in the meantime and was not replaced; use --overwrite to replace it.")


def _write_to(stream: Writable, result: UpscaleResult | UpscaledFrames, options: SaveOptions) -> UpscaleResult:
    from seesr.result import UpscaledFrames

    try:
        options = options.model_copy(update={"format": options.format or "png"})
        if isinstance(result, UpscaledFrames):
            result = result.save(stream, options, name="standard output")
        else:
            result.save(stream, options, name="standard output")
        sys.stdout.flush()
        return result
    except OSError as error:
        discard_standard_output()  # else Python would try again at its end
        raise OutputError(f"standard output cannot be written: {error.strerror or error}.") from error
    except OutputError:
        discard_standard_output()
        raise


def _refuse_beside(option: str, **others: object) -> None:
    """Raises OptionError where one of the options `others` is given beside `option`."""
    for name, value in others.items():
        if value:
            raise OptionError(f"--{name.replace('_', '-')} does not go together with {option}; leave one out.")


def _comparison(result: UpscaleResult) -> Image.Image:
    from seesr.images.icc import to_srgb
    from seesr.images.resize import side_by_side

    after, _ = to_srgb(result.image, Notes())
    return side_by_side(result.input, after)


@contextmanager
def _progress(pictures: int) -> Iterator[Callable[[list[FileJob]], Progress]]:
    """Progress bars for the pictures and for the steps of the current batch, on standard error if it is a terminal.

    Yields a function from a batch to its progress callback.
    """
    with progress_bars() as bars:
        overall = bars.add_task("pictures", total=pictures, visible=pictures > 1)
        current = bars.add_task("", total=None)
        started: set[Path] = set()

        def progress_for(batch: list[FileJob]) -> Progress:
            bars.update(overall, completed=len(started))  # before those of this batch
            started.update(job.source for job in batch)
            name = batch[0].source.name + (f" and {len(batch) - 1} more" if len(batch) > 1 else "")
            frame = ""

            def progress(stage: str, done: int, total: int) -> None:
                nonlocal frame
                if stage == "frame":
                    frame = f"frame {done + 1} of {total}, " if total > 1 else ""
                    return
                bars.update(current, description=f"{name}: {frame}{stage}", completed=done, total=total)

            return progress

        yield progress_for
