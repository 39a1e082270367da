"""The `seesr` command: puts the sub-commands together, and turns errors into sentences and exit codes.

PyTorch and what needs it is imported where it is used: help and mistyped options need not wait for it.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback

import typer

from seesr.cli import weights
from seesr.cli.console import BAD_INPUT, say
from seesr.cli.evaluate import evaluate
from seesr.cli.info import info
from seesr.cli.tags import tags
from seesr.cli.upscale import upscale
from seesr.debug import is_debugging
from seesr.errors import SeeSRError

app = typer.Typer(
    name="seesr",
    help="Real photographs, larger and sharper.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (upscale, tags, info, evaluate):
    app.command()(command)
app.add_typer(weights.app, name="weights")


def end_as_ctrl_c_does() -> None:
    """Lets other ways to end a process leave nothing half-written and no temporary files either."""
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(number := getattr(signal, name, signal.SIGTERM)) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def main() -> None:
    """Entry point: a user's error is one sentence and exit code 2; SEESR_DEBUG=1 shows its traceback too."""
    if threading.current_thread() is threading.main_thread():
        end_as_ctrl_c_does()
    try:
        app()
    except SeeSRError as error:
        if is_debugging():
            traceback.print_exc()
        say(f"seesr: {error}")
        sys.exit(BAD_INPUT)
