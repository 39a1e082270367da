"""What the commands share: lines for people, the exit codes, and loading an upscaler with a line that says which."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seesr.upscaler import Upscaler

BAD_INPUT, SOME_FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: nothing was done; some of several failed; Ctrl-C, or told to end."""


def say(text: str) -> None:
    """A line for people; standard output stays for results."""
    print(text, file=sys.stderr)


def load_upscaler(
    weights: str | None,
    device: str,
    dtype: str,
    memory_limit: int | None = None,
    sequential: bool = False,
    compiled: bool = False,
) -> Upscaler:
    from seesr.machine.device import dtype_name
    from seesr.upscaler import Upscaler

    upscaler = Upscaler.load(weights, device, dtype, memory_limit=memory_limit, sequential=sequential, compiled=compiled)
    say(f"weights: {upscaler.weights.name}, on {upscaler.engine.device} in {dtype_name(upscaler.engine.dtype)}")
    return upscaler
