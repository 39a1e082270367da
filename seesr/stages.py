"""What a running job reports: the seconds of each stage, and its progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("seesr")

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and of how much; what it raises ends the job."""


class Stages:
    """Seconds by stage name, in the order in which the stages ran; a stage that runs twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[StageLog]:
        """Times its block; the tensor that is given to the log is described in the debug log."""
        log = StageLog()
        started = time.perf_counter()
        try:
            yield log
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
            logger.debug("%s: %s%.3f s", name, log.text, elapsed)


class StageLog:
    """What the debug log says of a stage's output."""

    text = ""

    def __call__(self, tensor: Tensor) -> Tensor:
        """Describes shape and dtype of `tensor` and returns it."""
        self.text = f"{tuple(tensor.shape)} {tensor.dtype} "
        return tensor
