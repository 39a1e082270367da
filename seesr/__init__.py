"""SeeSR: real photographs, larger and sharper. `Upscaler.load().upscale("photo.jpg", scale=4)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seesr.errors import (
    ComputeError,
    InputError,
    OptionError,
    OutOfMemoryError,
    OutputError,
    SeeSRError,
    TimeLimitError,
    WeightsError,
)
from seesr.options import Options
from seesr.version import __version__

if TYPE_CHECKING:
    from seesr.result import Result
    from seesr.upscaler import Upscaler

__all__ = [
    "ComputeError",
    "InputError",
    "OptionError",
    "Options",
    "OutOfMemoryError",
    "OutputError",
    "Result",
    "SeeSRError",
    "TimeLimitError",
    "Upscaler",
    "WeightsError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Imports the models' libraries when they are first asked for: they take seconds, and `seesr --help` needs none."""
    if name == "Upscaler":
        from seesr.upscaler import Upscaler

        return Upscaler
    if name == "Result":
        from seesr.result import Result

        return Result
    raise AttributeError(f"module 'seesr' has no attribute {name!r}")
