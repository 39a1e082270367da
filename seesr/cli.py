"""The `seesr` command: translates arguments to options, shows progress, reports errors.

PyTorch and what needs it is imported where it is used: help and mistyped options need not wait for it.
"""

from __future__ import annotations

import errno
import json
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from seesr.batch import Job, plan_jobs
from seesr.debug import is_debugging
from seesr.errors import OutputError, SeeSRError
from seesr.evaluation.command import evaluate
from seesr.flags import Device, Dtype, MemoryLimit, Weights, takes_options, takes_save_options
from seesr.images.save import save, saved_after
from seesr.options import Options, SaveOptions
from seesr.version import __version__
from seesr.weights import commands as weights_commands

if TYPE_CHECKING:
    from PIL import Image

    from seesr.result import Result
    from seesr.upscaler import Upscaler

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "pillow", "numpy")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Why no further picture can be written either."""
BAD_INPUT, SOME_FAILED, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="seesr",
    help="Real photographs, larger and sharper.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(evaluate)
app.add_typer(weights_commands.app, name="weights")


Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON for each picture.")]


@app.command()
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
        _say("nothing to do: every output exists.")
        return
    upscaler = _load(weights, device, dtype, memory_limit, sequential, compiled)
    done, failures = 0, list[str]()
    try:
        with _progress(len(jobs)) as tell:
            for job, result in _upscale_each(upscaler, jobs, upscaler.together, options, tell):
                try:
                    if isinstance(result, Exception):
                        raise result
                    _write(job, result, upscaler, saving, overwrite)
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
        _say("stopped; finished pictures are whole.")
        _say_failures(failures, done, len(jobs))
        raise typer.Exit(INTERRUPTED) from None
    if failures:
        _say_failures(failures, done, len(jobs))
        if left := len(jobs) - done - len(failures):
            _say(f"  {left} were not tried: they could not be written either.")
        raise typer.Exit(SOME_FAILED if done else BAD_INPUT)


@app.command()
def tags(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    device: Device = "auto",
    dtype: Dtype = "auto",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Print what RAM sees in a picture, the most certain first."""
    found = sorted(_load(weights, device, dtype).tags(image), key=lambda tag: -tag.confidence)
    if as_json:
        print(json.dumps([{"tag": tag.name, "confidence": round(tag.confidence, 4)} for tag in found]))
        return
    for tag in found:
        print(f"{tag.confidence:.2f}  {tag.name}")
    if not found:
        _say("no tag is certain enough.")


@app.command()
def info(device: Device = "auto", dtype: Dtype = "auto", weights: Weights = None) -> None:
    """Print versions, device, dtype, memory and weights."""
    import torch

    from seesr.runtime.device import choose_device, choose_dtype, dtype_name
    from seesr.runtime.memory import memory_bytes
    from seesr.weights.resolve import resolve_weights

    chosen = choose_device(device)
    free, total = memory_bytes(chosen)
    packages = ", ".join(f"{name} {installed_version(name)}" for name in PACKAGES)
    found = resolve_weights(weights)
    print(f"seesr    {__version__} (Python {platform.python_version()}; {packages})")
    devices = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    print(f"devices  {', '.join(devices + ['mps'] * torch.backends.mps.is_available())}")
    print(f"device   {chosen}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    print(f"dtype    {dtype_name(choose_dtype(dtype, chosen, found.wishes.dtype, total))}")
    print(f"weights  {found.name}: {found.root}")


def _load(
    weights: str | None,
    device: str,
    dtype: str,
    memory_limit: int | None = None,
    sequential: bool = False,
    compiled: bool = False,
) -> Upscaler:
    from seesr.runtime.device import dtype_name
    from seesr.upscaler import Upscaler

    upscaler = Upscaler.load(weights, device, dtype, memory_limit=memory_limit, sequential=sequential, compiled=compiled)
    _say(f"weights: {upscaler.weights.name}, on {upscaler.device} in {dtype_name(upscaler.dtype)}")
    return upscaler


def _upscale_each(
    upscaler: Upscaler, jobs: list[Job], together: int, options: Options, tell: Callable[[list[Job]], Any]
) -> Iterator[tuple[Job, Result | Exception]]:
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


def _say(text: str) -> None:
    """A line for people; standard output stays for results."""
    print(text, file=sys.stderr)


def _failure(job: Job, error: Exception, as_json: bool) -> str:
    """What went wrong with a picture of several, with its name; said at once, for the last one may be hours away."""
    told = str(error) if isinstance(error, SeeSRError) else f"something went wrong inside ({type(error).__name__}: {error})."
    if not any(str(path) in told for path in (job.source, job.target)):
        told = f"{job.source}: {told}"
    _say(f"failed: {told}")
    if is_debugging():
        traceback.print_exception(error)
    if as_json:
        print(json.dumps({"input": str(job.source), "error": told}), flush=True)
    return told


def _say_failures(failures: list[str], done: int, total: int) -> None:
    if failures:
        _say(f"{done} of {total} pictures done; {len(failures)} failed:")
    for failure in failures:
        _say(f"  {failure}")


def _report(job: Job, result: Result, as_json: bool) -> None:
    if as_json:
        record = {
            "input": str(job.source),
            "output": str(job.target),
            "seed": result.seed,
            "prompt": result.prompt,
            "tags": {tag.name: round(tag.confidence, 4) for tag in result.tags},
            "input_size": result.sizes.input,
            "output_size": result.sizes.output,
            "working_size": result.sizes.working,
            "steps": result.options.steps,
            "weights": result.weights,
            "dtype": result.dtype,
            "notes": result.notes,
            "rung": result.rung,
            "attempts": [{"rung": attempt.rung, "reason": attempt.reason} for attempt in result.attempts],
            "vae": result.vae,
            "peak_memory": result.peak_memory,
            "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
        }
        print(json.dumps(record), flush=True)
        return
    width, height = result.sizes.output
    notes = list(result.notes)
    if result.attempts:
        tried = ", ".join(attempt.rung for attempt in result.attempts)
        notes.append(f"memory did not suffice for {tried}; it was made by {result.rung}")
    told = "".join(f"; {note}" for note in notes)
    _say(f"{job.target}: {width}x{height}, seed {result.seed}, {sum(result.seconds.values()):.1f} s{told}")


def _write(job: Job, result: Result, upscaler: Upscaler, options: SaveOptions, overwrite: bool) -> None:
    """The result, and the comparison before it is moved into place: the result is what marks a picture as done."""
    if job.target.exists() and not overwrite:
        raise OutputError(f"{job.target} exists since a moment ago and was left as it is; use --overwrite to replace it.")
    with saved_after(result.image, job.target, options, result.settings()):
        if job.comparison is not None:
            save(_before_and_after(job, result, upscaler), job.comparison)


def _before_and_after(job: Job, result: Result, upscaler: Upscaler) -> Image.Image:
    from seesr.images.decode import open_picture, to_srgb
    from seesr.images.resize import side_by_side

    after, _ = to_srgb(result.image, [])
    return side_by_side(open_picture(job.source, upscaler.limits).rgb, after)


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


def _end_as_ctrl_c_does() -> None:
    """Lets other ways to end a process leave nothing half-written and no temporary files either."""
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(number := getattr(signal, name, signal.SIGTERM)) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def main() -> None:
    """Entry point: a user's error is one sentence and exit code 2; SEESR_DEBUG=1 shows its traceback too."""
    if threading.current_thread() is threading.main_thread():
        _end_as_ctrl_c_does()
    try:
        app()
    except SeeSRError as error:
        if is_debugging():
            traceback.print_exc()
        _say(f"seesr: {error}")
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
