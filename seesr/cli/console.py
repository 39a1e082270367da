"""Status messages, progress bars, exit codes, and loading of the upscaler, which the sub-commands share."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    import typer

    from seesr.upscaler import Upscaler

EXIT_FAILED, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 2, 1, 130
"""Exit codes: no picture was upscaled; some of several failed; Ctrl-C or SIGTERM."""


def print_status(text: str) -> None:
    """Prints a message to standard error; standard output is for results only."""
    print(text, file=sys.stderr)


def print_record(record: dict[str, Any]) -> None:
    """Prints a line of JSON to standard output; where its reader is gone, the work goes on without."""
    try:
        print(json.dumps(record), flush=True)
    except BrokenPipeError:
        discard_standard_output()
        print_status("standard output was closed; the pictures are made all the same, their records are lost.")


def discard_standard_output() -> None:
    """What is still in the buffer, and what is printed from now on, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def progress_bars() -> Progress:
    """Bars on standard error, if it is a terminal, which go away at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=False)


def load_upscaler(
    context: typer.Context,
    weights: str | None,
    device: str,
    dtype: str,
    memory_limit: int | None = None,
    sequential: bool = False,
    compiled: bool = False,
) -> Upscaler:
    """Loads the networks, with what `main` was given for that, and prints which weights, device and precision are used."""
    from seesr.machine.device import dtype_name
    from seesr.upscaler import Upscaler

    load = context.obj or Upscaler.load
    upscaler = load(weights, device, dtype, memory_limit=memory_limit, sequential=sequential, compiled=compiled)
    print_status(f"weights: {upscaler.weights.name}, on {upscaler.engine.device} in {dtype_name(upscaler.engine.dtype)}")
    return upscaler
