"""What is logged: the debug mode that SEESR_DEBUG=1 switches on, and warnings that say nothing to a user."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


def is_debugging() -> bool:
    """Whether SEESR_DEBUG is set to anything but 0."""
    return os.environ.get("SEESR_DEBUG", "") not in ("", "0")


def show_debug_log() -> None:
    """Logs every stage to standard error, unless the program has configured logging itself."""
    from rich.console import Console
    from rich.logging import RichHandler

    logging.basicConfig(level=logging.WARNING, handlers=[RichHandler(console=Console(stderr=True))], format="%(message)s")
    logging.getLogger("seesr").setLevel(logging.DEBUG)


@contextmanager
def without_warnings(library: str, level: int = logging.ERROR) -> Iterator[None]:
    """Of a library's logger only what is of this level or above is heard meanwhile."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Transformers shows no progress bars meanwhile."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            transformers_logging.enable_progress_bar()
