"""What SEESR_DEBUG=1 asks for: it helps to find an error."""

from __future__ import annotations

import logging
import os


def is_debugging() -> bool:
    """Whether it is set, to anything but 0."""
    return os.environ.get("SEESR_DEBUG", "") not in ("", "0")


def show_log() -> None:
    """Shows every stage on standard error, but where the program has arranged its logs already."""
    from rich.console import Console
    from rich.logging import RichHandler

    logging.basicConfig(level=logging.WARNING, handlers=[RichHandler(console=Console(stderr=True))], format="%(message)s")
    logging.getLogger("seesr").setLevel(logging.DEBUG)
