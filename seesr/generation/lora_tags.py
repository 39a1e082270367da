"""How a LoRA is asked for: `<lora:name:0.8>` in a prompt, as in the AUTOMATIC1111 web UI, or `name:0.8` beside it.

A second number is the weight in the UNet, the first then that in the text encoder; both may also be named, `te=0.5` and
`unet=0.8`. Without a number the weight is 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seesr.errors import OptionError

MAX_LORAS, MAX_WEIGHT = 16, 10.0
"""In a prompt, and on both sides of 0."""
_TAG = re.compile(r"<(?:lora|lyco):([^<>]*)>", re.IGNORECASE)
_WEIGHTS = {"te": "text_weight", "unet": "unet_weight"}
_NUMBER = re.compile(r"[-+]?(?:\d{1,9}\.?\d{0,9}|\.\d{1,9})")


@dataclass(frozen=True)
class LoraTag:
    """The name of a LoRA, and how much it counts in each network."""

    name: str
    text_weight: float = 1.0
    unet_weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> LoraTag:
        """Reads `name`, `name:0.8`, `name:0.5:0.8` or `name:te=0.5:unet=0.8`.

        Raises:
            OptionError: the name is empty, or a weight is not such a number.
        """
        name, *arguments = (part.strip() for part in text.split(":"))
        weights, positional = dict[str, float](), list[float]()
        for argument in arguments:
            key, equals, number = argument.rpartition("=")
            if not _NUMBER.fullmatch(number) or abs(float(number)) > MAX_WEIGHT or (equals and key not in _WEIGHTS):
                raise OptionError(
                    f"the LoRA {text!r} has {argument!r}; write NAME, NAME:0.8 or NAME:te=0.5:unet=0.8 with numbers from "
                    f"-{MAX_WEIGHT:g} to {MAX_WEIGHT:g}."
                )
            if equals:
                weights[_WEIGHTS[key]] = float(number)
            else:
                positional.append(float(number))
        if not name or len(positional) > 2 or any(sign in text for sign in "<>"):
            raise OptionError(f"the LoRA {text!r} is not written as NAME, NAME:0.8 or NAME:te=0.5:unet=0.8.")
        text_weight, *rest = positional or [1.0]
        return cls(name, **{"text_weight": text_weight, "unet_weight": rest[0] if rest else text_weight} | weights)


def as_tags(loras: tuple[str, ...]) -> str:
    """`name:0.8` and others as they stand in a prompt."""
    return "".join(f"<lora:{lora}>" for lora in loras)


def split_tags(prompt: str) -> tuple[str, list[LoraTag]]:
    """The prompt without its tags, and the tags.

    Raises:
        OptionError: a tag cannot be read, or there are too many.
    """
    tags = [LoraTag.parse(found[1]) for found in _TAG.finditer(prompt)]
    if len(tags) > MAX_LORAS:
        raise OptionError(f"the prompt asks for {len(tags)} LoRAs; at most {MAX_LORAS} are allowed.")
    return _TAG.sub("", prompt), tags
