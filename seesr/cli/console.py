"""Status messages, progress bars, exit codes, and loading of the upscaler, which the sub-commands share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

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
