"""Units of ControlNet as a user asks for them: which ControlNet, by which picture, how strongly and at which steps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

from seesr.errors import OptionError

Preprocessor = Literal["none", "canny", "depth"]
PREPROCESSORS: tuple[Preprocessor, ...] = get_args(Preprocessor)
MAX_CONTROLS, MAX_WEIGHT = 8, 2.0
"""Units of a job, and the weight of each."""
Picture = TypeVar("Picture")
Other = TypeVar("Other")
_NUMBER = re.compile(r"\d{1,9}\.?\d{0,9}|\.\d{1,9}")
_FORM = "NAME, NAME:WEIGHT, NAME:WEIGHT:START or NAME:WEIGHT:START:END"


@dataclass(frozen=True)
class ControlUnit(Generic[Picture]):
    """A ControlNet and the picture that it steers by.

    Raises:
        OptionError: a value is outside its limits.
    """

    name: str
    """Of a folder in `models/controlnet`."""
    image: Picture
    """An `ImageSource`; in a `JobRequest` the hash of its content."""
    weight: float = 1.0
    """Factor of what the ControlNet adds, 0 to 2; with 0 it is not run."""
    start: float = 0.0
    end: float = 1.0
    """Shares of the steps, 0 to 1, between which it is run, as in diffusers' pipelines."""
    preprocessor: Preprocessor = "none"
    """What is made of the picture; `none` where it is a map already."""

    def __post_init__(self) -> None:
        if not self.name:
            raise OptionError("a ControlNet has no name; give that of a folder in models/controlnet.")
        if not 0 <= self.weight <= MAX_WEIGHT:
            raise OptionError(f"the weight of the ControlNet {self.name} is {self.weight:g}; give 0 to {MAX_WEIGHT:g}.")
        if not 0 <= self.start < self.end <= 1:
            raise OptionError(
                f"the ControlNet {self.name} is to run from {self.start:g} to {self.end:g} of the steps; give a start below "
                "the end, from 0 to 1."
            )
        if self.preprocessor not in PREPROCESSORS:
            raise OptionError(f"unknown preprocessor {self.preprocessor!r}; valid ones: {', '.join(PREPROCESSORS)}.")

    @classmethod
    def parse(cls, text: str, image: Picture, preprocessor: str = "none") -> ControlUnit[Picture]:
        """Reads `name`, `name:0.8`, `name:0.8:0` or `name:0.8:0:0.5`.

        Raises:
            OptionError: it is not written so, or a value is outside its limits.
        """
        name, *numbers = (part.strip() for part in text.split(":"))
        if len(numbers) > 3 or not all(map(_NUMBER.fullmatch, numbers)):
            raise OptionError(f"the ControlNet {text!r} is not written as {_FORM}.")
        values = dict(zip(("weight", "start", "end"), map(float, numbers), strict=False))
        return cls(name, image, **values, preprocessor=preprocessor)  # pyright: ignore[reportArgumentType] # is checked

    def with_image(self, image: Other) -> ControlUnit[Other]:
        """The same unit with another picture, or its picture in another form."""
        return ControlUnit(self.name, image, self.weight, self.start, self.end, self.preprocessor)
