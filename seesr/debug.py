"""The debug mode that SEESR_DEBUG=1 switches on."""

from __future__ import annotations

import logging
import os


def is_debugging() -> bool:
    """Whether SEESR_DEBUG is set to anything but 0."""
    return os.environ.get("SEESR_DEBUG", "") not in ("", "0")


def show_debug_log() -> None:
    """Logs every stage to standard error, unless the program has configured logging itself."""
    from rich.console import Console
    from rich.logging import RichHandler

    logging.basicConfig(level=logging.WARNING, handlers=[RichHandler(console=Console(stderr=True))], format="%(message)s")
    logging.getLogger("seesr").setLevel(logging.DEBUG)
