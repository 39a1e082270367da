"""The `seesr` command: registers the sub-commands and turns errors into messages and exit codes.

PyTorch and what depends on it is imported inside functions, so that help and mistyped options do not wait for it.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from seesr.cli import models, studio, weights
from seesr.cli.console import EXIT_FAILED, print_status
from seesr.cli.evaluate import evaluate
from seesr.cli.generate import generate
from seesr.cli.info import info
from seesr.cli.read import read
from seesr.cli.tags import tags
from seesr.cli.upscale import upscale
from seesr.debug import is_debugging
from seesr.errors import SeeSRError

if TYPE_CHECKING:
    from seesr.upscaler import Upscaler

app = typer.Typer(
    name="seesr",
    help="Real photographs, larger and sharper.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (upscale, generate, read, tags, info, evaluate):
    app.command()(command)
app.add_typer(weights.app, name="weights")
app.add_typer(models.app, name="models")
app.add_typer(studio.app, name="studio")


def handle_termination_as_interrupt() -> None:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt, so that no partial and no temporary files stay."""
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(number := getattr(signal, name, signal.SIGTERM)) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def main(load: Callable[..., Upscaler] | None = None) -> None:
    """Entry point. A `SeeSRError` ends with its message and exit code 2; SEESR_DEBUG=1 also shows its traceback.

    Args:
        load: called in place of `Upscaler.load`, with its arguments.
    """
    if threading.current_thread() is threading.main_thread():
        handle_termination_as_interrupt()
    try:
        app(obj=load)
    except SeeSRError as error:
        if is_debugging():
            traceback.print_exc()
        print_status(f"seesr: {error}")
        sys.exit(EXIT_FAILED)
