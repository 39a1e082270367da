"""Out of memory is a detour: the same picture with the same seed, one rung down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from seesr.errors import Attempt, OutOfMemoryError
from seesr.runtime.memory import forget_frames, free_memory, is_out_of_memory
from seesr.runtime.plan import Rung

T = TypeVar("T")


def climb_down(ladder: list[Rung], run: Callable[[Rung], T]) -> tuple[T, Rung, list[Attempt]]:
    """What `run` gives on the first rung whose memory suffices, that rung, and the attempts before it.

    Raises:
        OutOfMemoryError: it did not suffice on the last one either. Any other error of `run` is raised as it is.
    """
    attempts: list[Attempt] = []
    for rung in ladder:
        try:
            return run(rung), rung, attempts
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            attempts.append(Attempt(rung.name, _reason(error)))
            forget_frames(error)
        free_memory(rung.device)
    tried = ", ".join(attempt.rung for attempt in attempts)
    raise OutOfMemoryError(
        f"memory ran out on every way ({tried}; {attempts[-1].reason}). "
        "Ask for a smaller scale or the preset memory, or close other programs.",
        attempts,
    )


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
