"""The errors that a user can cause and mend. Everything else is a defect and is raised as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SeeSRError(Exception):
    """Base of all errors whose message is one sentence for the user: what, the value, the limit, what to do."""


class InputError(SeeSRError):
    """The picture given cannot be used: missing, not a picture, damaged, or beyond a limit."""


class OptionError(SeeSRError):
    """An option has a value that it cannot have."""


class WeightsError(SeeSRError):
    """Model files are missing or are not what they should be."""


class OutputError(SeeSRError):
    """The result cannot be written where it was asked to go."""


@dataclass(frozen=True)
class Attempt:
    """A way through the memory that was tried in vain, and why it failed."""

    rung: str
    reason: str


class OutOfMemoryError(SeeSRError):
    """Memory ran out on every way there is."""

    def __init__(self, message: str, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__(message)
        self.attempts = attempts


class TimeLimitError(SeeSRError):
    """The picture took longer than the operator allows."""


class ComputeError(SeeSRError):
    """The models gave numbers that are none, in every precision."""
