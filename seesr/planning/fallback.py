"""The fallback: runs a job with the first memory plan of the ladder that does not run out of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from seesr.errors import Attempt, OutOfMemoryError
from seesr.machine.memory import release_memory
from seesr.machine.out_of_memory import clear_tracebacks, is_out_of_memory
from seesr.planning.plan import MemoryPlan

T = TypeVar("T")


def run_with_fallback(
    ladder: list[MemoryPlan],
    run: Callable[[MemoryPlan], T],
    release: Callable[[torch.device], object] = release_memory,
) -> tuple[T, MemoryPlan, list[Attempt]]:
    """The result of `run` with the first plan that does not run out of memory, that plan, and the failed attempts.

    Args:
        ladder: at least one plan, in the order in which they are tried.
        release: called after each failed attempt, with the plan's device.

    Raises:
        OutOfMemoryError: every plan ran out of memory. Any other error of `run` is raised unchanged.
    """
    attempts: list[Attempt] = []
    for plan in ladder:
        try:
            return run(plan), plan, attempts
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            attempts.append(Attempt(plan.name, _reason(error)))
            clear_tracebacks(error)
        release(plan.device)
    tried = ", ".join(attempt.rung for attempt in attempts)
    raise OutOfMemoryError(
        f"memory ran out with every plan ({tried}; {attempts[-1].reason}). "
        "Ask for a smaller picture or close other programs.",
        attempts,
    )


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
