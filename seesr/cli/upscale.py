"""`seesr upscale`: pictures in, pictures out; what fails of several is said at once, and the others go on."""

from __future__ import annotations

import errno
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from seesr.cli.console import BAD_INPUT, INTERRUPTED, SOME_FAILED, load_upscaler, say
from seesr.cli.flags import Device, Dtype, Json, MemoryLimit, Weights, takes_options, takes_save_options
from seesr.cli.inputs import Job, plan_jobs
from seesr.debug import is_debugging
from seesr.errors import OutputError, SeeSRError
from seesr.images.save import save, saved_after
from seesr.notes import Notes
from seesr.options import Options, SaveOptions

if TYPE_CHECKING:
    from PIL import Image

    from seesr.result import UpscaleResult
    from seesr.upscaler import Upscaler

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Why no further picture can be written either."""


@takes_options()
@takes_save_options
def upscale(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Pictures, folders, or quoted patterns.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File, or folder for several pictures.")],
    *,
    recursive: Annotated[bool, typer.Option(help="Look into sub-folders too.")] = False,
    options: Options,
    memory_limit: MemoryLimit = None,
    sequential: Annotated[
        bool, typer.Option(help="Keep only the running model on the device; on a CPU, in memory.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the models' blocks at their first run: for many pictures.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    weights: Weights = None,
    saving: SaveOptions,
    overwrite: Annotated[bool, typer.Option(help="Replace output files that exist.")] = False,
    skip_existing: Annotated[bool, typer.Option(help="Leave out pictures whose output file exists.")] = False,
    as_json: Json = False,
    compare: Annotated[bool, typer.Option(help="Also save a before/after picture beside each output.")] = False,
) -> None:
    """Upscale pictures."""
    jobs = plan_jobs(inputs, output, recursive, overwrite, skip_existing, saving.format, compare)
    if not jobs:
        say("nothing to do: every output exists.")
        return
    upscaler = load_upscaler(weights, device, dtype, memory_limit, sequential, compiled)
    done, failures = 0, list[str]()
    try:
        with _progress(len(jobs)) as tell:
            for job, result in _upscale_each(upscaler, jobs, upscaler.engine.preferred_batch, options, tell):
                try:
                    if isinstance(result, Exception):
                        raise result
                    _write(job, result, saving, overwrite)
                except Exception as error:  # told, and the other pictures are still wanted
                    if len(jobs) == 1:
                        raise
                    failures.append(_failure(job, error, as_json))
                    result = None  # it holds what was computed
                    if getattr(error.__cause__, "errno", None) in NO_ROOM:
                        break
                else:
                    done += 1
                    _report(job, result, as_json)
    except KeyboardInterrupt:
        say("stopped; finished pictures are whole.")
        _say_failures(failures, done, len(jobs))
        raise typer.Exit(INTERRUPTED) from None
    if failures:
        _say_failures(failures, done, len(jobs))
        if left := len(jobs) - done - len(failures):
            say(f"  {left} were not tried: they could not be written either.")
        raise typer.Exit(SOME_FAILED if done else BAD_INPUT)


def _upscale_each(
    upscaler: Upscaler, jobs: list[Job], together: int, options: Options, tell: Callable[[list[Job]], Any]
) -> Iterator[tuple[Job, UpscaleResult | Exception]]:
    """Each job's result or error: `together` jobs at a time, and one by one where one of them fails."""
    for first in range(0, len(jobs), together):
        part = jobs[first : first + together]
        try:
            results = upscaler.upscale_many([job.source for job in part], options, progress=tell(part))
        except Exception as error:  # noqa: BLE001  # raised again by the caller
            if len(part) == 1:
                yield part[0], error
                continue
            if is_debugging():
                traceback.print_exc()
        else:
            yield from zip(part, results, strict=True)
            continue
        # Here, where the error holds nothing of what was computed.
        yield from _upscale_each(upscaler, part, 1, options, tell)


def _failure(job: Job, error: Exception, as_json: bool) -> str:
    """What went wrong with a picture of several, with its name; said at once, for the last one may be hours away."""
    told = str(error) if isinstance(error, SeeSRError) else f"something went wrong inside ({type(error).__name__}: {error})."
    if not any(str(path) in told for path in (job.source, job.target)):
        told = f"{job.source}: {told}"
    say(f"failed: {told}")
    if is_debugging():
        traceback.print_exception(error)
    if as_json:
        print(json.dumps({"input": str(job.source), "error": told}), flush=True)
    return told


def _say_failures(failures: list[str], done: int, total: int) -> None:
    if failures:
        say(f"{done} of {total} pictures done; {len(failures)} failed:")
    for failure in failures:
        say(f"  {failure}")


def _report(job: Job, result: UpscaleResult, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"input": str(job.source), "output": str(job.target), **result.record()}), flush=True)
        return
    width, height = result.sizes.output
    notes = list(result.notes)
    if result.attempts:
        tried = ", ".join(attempt.rung for attempt in result.attempts)
        notes.append(f"memory did not suffice for {tried}; it was made with the plan {result.rung}")
    told = "".join(f"; {note}" for note in notes)
    say(f"{job.target}: {width}x{height}, seed {result.seed}, {sum(result.seconds.values()):.1f} s{told}")


def _write(job: Job, result: UpscaleResult, options: SaveOptions, overwrite: bool) -> None:
    """The result, and the comparison before it is moved into place: the result is what marks a picture as done."""
    if job.target.exists() and not overwrite:
        raise OutputError(f"{job.target} exists since a moment ago and was left as it is; use --overwrite to replace it.")
    with saved_after(result.image, job.target, options, result.settings()):
        if job.comparison is not None:
            save(_before_and_after(result), job.comparison)


def _before_and_after(result: UpscaleResult) -> Image.Image:
    from seesr.images.read import to_srgb
    from seesr.images.resize import side_by_side

    after, _ = to_srgb(result.image, Notes())
    return side_by_side(result.input, after)


@contextmanager
def _progress(pictures: int) -> Iterator[Any]:
    """Bars over pictures and over the steps of the one at work, on standard error and only on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=False) as bars:
        overall = bars.add_task("pictures", total=pictures, visible=pictures > 1)
        current = bars.add_task("", total=None)
        started: set[Path] = set()

        def tell(part: list[Job]) -> Any:
            bars.update(overall, completed=len(started))
            started.update(job.source for job in part)
            name = part[0].source.name + (f" and {len(part) - 1} more" if len(part) > 1 else "")

            def progress(stage: str, done: int, total: int) -> None:
                bars.update(current, description=f"{name}: {stage}", completed=done, total=total)

            return progress

        yield tell
