"""Times each stage of an image's way, and tells the debug log what came out of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

logger = logging.getLogger("seesr")


class Stages:
    """Seconds by stage name, in the order in which the stages ran; a stage that runs twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[Note]:
        """Times its block; what is given to `note.result` appears in the debug log."""
        note = Note()
        started = time.perf_counter()
        try:
            yield note
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
            logger.debug("%s: %s%.3f s", name, note.text, elapsed)


class Note:
    """What a stage says of its result."""

    text = ""

    def result(self, tensor: Tensor) -> Tensor:
        """Notes shape and dtype of `tensor` and returns it."""
        self.text = f"{tuple(tensor.shape)} {tensor.dtype} "
        return tensor
