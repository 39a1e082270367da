"""SeeSR: real photographs, larger and sharper. `Upscaler.load().upscale("photo.jpg", scale=4)`."""

from seesr.errors import InputError, OptionError, OutputError, SeeSRError, WeightsError
from seesr.options import Options
from seesr.upscaler import Result, Upscaler
from seesr.version import __version__

__all__ = [
    "InputError",
    "OptionError",
    "Options",
    "OutputError",
    "Result",
    "SeeSRError",
    "Upscaler",
    "WeightsError",
    "__version__",
]
