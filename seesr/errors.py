"""The errors that a user can cause and correct. Any other exception is a bug and is not converted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class SeeSRError(Exception):
    """Base of the errors for users: the message names in one sentence the value, its limit and what to do."""


class InputError(SeeSRError):
    """The input cannot be used: it is missing, not a picture, damaged, or exceeds a limit."""


class OptionError(SeeSRError):
    """An option is unknown, or its value is invalid."""


class WeightsError(SeeSRError):
    """Files of the weights are missing or invalid."""


class AddressError(SeeSRError):
    """An address is not one that may be fetched from."""


class OutputError(SeeSRError):
    """The output cannot be written."""


def first_line(error: BaseException) -> str:
    """What a library's error says first, for the end of a sentence; its type where it says nothing."""
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def listed(names: Iterable[str], most: int) -> str:
    """The first names, at most so many, for a sentence."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


@dataclass(frozen=True)
class Attempt:
    """A memory plan that ran out of memory."""

    rung: str
    """Name of the memory plan."""
    reason: str
    """Message of the out-of-memory error."""


class OutOfMemoryError(SeeSRError):
    """Memory does not suffice, with any memory plan."""

    def __init__(self, message: str, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__(message)
        self.attempts = attempts


class TimeLimitError(SeeSRError):
    """The picture took longer than `Limits.seconds`."""


class CanceledError(SeeSRError):
    """Somebody cancelled the job."""


class ComputeError(SeeSRError):
    """The networks returned NaN or infinity, in float32 too."""
