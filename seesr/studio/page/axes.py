"""An axis of an X/Y/Z plot: an option, and the values that it takes one after the other.

Numbers are a list and ranges: `1, 2, 4`, `1-10`, `1-10 (+3)`, `1..10 by 3`, and with the number of values `1-10 [4]`.
Words are a list; one that holds a comma stands in double quotes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from seesr.errors import InputError, OptionError
from seesr.generation.options import GenerationOptions
from seesr.generation.samplers import SAMPLERS, SCHEDULES

REPLACE = "replace"
"""The axis that replaces words of the prompts: the first value is what is looked for."""
OTHERS = ("checkpoint", "vae")
"""Axes that are no options of `GenerationOptions`, but fields of the request."""
LEFT_OUT = {
    *("prompt", "negative_prompt", "styles", "loras", "batch_size", "batch_count", "outpaint"),
    *("mask_blur", "mask_invert", "inpaint_area", "inpaint_padding", "inpaint_fill"),
}
"""Options that no axis has: words of prompts are replaced, and a cell is one picture."""
MAX_VALUES = 200
"""Of an axis."""
_NUMBER = r"[-+]?(?:\d{1,12}(?:\.\d{0,9})?|\.\d{1,9})"
_RANGE = re.compile(
    rf"({_NUMBER})\s*(?:-|\.\.)\s*({_NUMBER})\s*(?:\(\s*\+?({_NUMBER})\s*\)|by\s+({_NUMBER})|\[\s*(\d{{1,3}})\s*\])?"
)


@dataclass(frozen=True)
class Axis:
    """An option and its values, as they were written."""

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, text: str) -> Axis:
        """Reads the values; none, of an option that is chosen from a list, are all of the list.

        Raises:
            InputError: there are none or too many, or one is no number where one must be.
        """
        values = tuple(_numbers(text) if _is_number(name) else _words(text)) or choices(name)
        if not values:
            raise InputError(f"{name} has no values; give some, such as 1, 2 or 1-10 (+3).")
        if len(values) > MAX_VALUES:
            raise InputError(f"{name} has more than {MAX_VALUES} values; give fewer.")
        return cls(name, tuple(dict.fromkeys(values)))

    def apply(self, values: Mapping[str, Any], value: str) -> dict[str, Any]:
        """The fields of a form with a value of the axis in place.

        Raises:
            InputError: no prompt holds what is to be replaced.
        """
        if self.name != REPLACE:
            return {**values, self.name: value}
        wanted, changed = self.values[0], dict(values)
        for name in ("prompt", "negative_prompt"):
            changed[name] = str(values.get(name) or "").replace(wanted, value)
        if all(wanted not in str(values.get(name) or "") for name in ("prompt", "negative_prompt")):
            raise InputError(
                f"the prompt does not hold {wanted!r}, the first value of the axis; give words that stand in it."
            )
        return changed


def axis_names() -> list[str]:
    """Names of all axes."""
    return [REPLACE, *(name for name in GenerationOptions.model_fields if name not in LEFT_OUT), *OTHERS]


def choices(name: str) -> tuple[str, ...]:
    """All values of an option that is chosen from a list; else empty."""
    if name == "sampler":
        return tuple(sampler.name for sampler in SAMPLERS)
    if name == "schedule":
        return tuple(SCHEDULES)
    return tuple(map(str, GenerationOptions.choices(name))) if name in GenerationOptions.model_fields else ()


def _is_number(name: str) -> bool:
    if name not in GenerationOptions.model_fields:
        return False
    annotation = str(GenerationOptions.model_fields[name].annotation)
    return "int" in annotation or "float" in annotation


def _words(text: str) -> list[str]:
    try:
        rows = list(csv.reader(text.splitlines(), skipinitialspace=True, strict=True))
    except csv.Error:
        raise InputError(f"the values {text!r} have a double quote that is not closed; close it.") from None
    return [word.strip() for row in rows for word in row if word.strip()]


def _numbers(text: str) -> Iterator[str]:
    for part in re.split(r"[,\n]", text):
        part = part.strip()
        if not part:
            continue
        if re.fullmatch(_NUMBER, part):
            yield _written(Decimal(part))
        elif match := _RANGE.fullmatch(part):
            yield from _range(part, *match.groups())
        else:
            raise InputError(f"{part!r} is no number and no range; write 1, 2, or 1-10, 1-10 (+3), 1..10 by 3.")


def _range(part: str, first: str, last: str, step: str | None, by: str | None, count: str | None) -> Iterator[str]:
    low, high = Decimal(first), Decimal(last)
    if count is not None:
        number = int(count)
        size = (high - low) / (number - 1) if number > 1 else Decimal(0)
    else:
        size = abs(Decimal(step or by or "1")) * (1 if high >= low else -1)
        if size == 0:
            raise InputError(f"the range {part!r} has the step 0; give one above 0.")
        number = int((high - low) / size) + 1
    if not 1 <= number <= MAX_VALUES:
        raise InputError(f"the range {part!r} has {number} values; give one of 1 to {MAX_VALUES}.")
    yield from (_written(round(low + size * place, 9)) for place in range(number))


def _written(number: Decimal) -> str:
    """Without zeros at its end, and without an exponent."""
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def check_name(name: str) -> str:
    """The name of an axis.

    Raises:
        OptionError: there is none of this name.
    """
    if name not in axis_names():
        raise OptionError(f"unknown axis {name!r}; valid axes: {', '.join(axis_names())}.")
    return name
