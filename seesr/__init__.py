"""SeeSR: real photographs, larger and sharper, and pictures that are made on the same models.

`Upscaler.load().upscale("photo.jpg", scale=4)` and `Generator.load().text_to_image("a cat")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seesr.errors import (
    CanceledError,
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
    from seesr.generation.controls import ControlUnit
    from seesr.generation.generator import Generator
    from seesr.generation.options import GenerationOptions
    from seesr.result import Result
    from seesr.upscaler import Upscaler

__all__ = [
    "CanceledError",
    "ComputeError",
    "ControlUnit",
    "GenerationOptions",
    "Generator",
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
    if name == "Generator":
        from seesr.generation.generator import Generator

        return Generator
    if name == "ControlUnit":
        from seesr.generation.controls import ControlUnit

        return ControlUnit
    if name == "GenerationOptions":
        from seesr.generation.options import GenerationOptions

        return GenerationOptions
    if name == "Result":
        from seesr.result import Result

        return Result
    raise AttributeError(f"module 'seesr' has no attribute {name!r}")
