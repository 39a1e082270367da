"""The options that made a picture, from the settings in its file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from seesr.errors import OptionError
from seesr.generation.infotext import Infotext
from seesr.generation.options import MAX_SIDE, MIN_SIDE, GenerationOptions
from seesr.generation.samplers import SAMPLERS, parse_sampler

SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "Steps": ("steps", int),
    "Sampler": ("sampler", lambda name: parse_sampler(name) and name),
    "Schedule type": ("schedule", lambda name: parse_sampler(SAMPLERS[0].name, name)[1]),
    "CFG scale": ("guidance_scale", float),
    "Seed": ("seed", int),
    "Variation seed": ("variation_seed", int),
    "Variation seed strength": ("variation_strength", float),
    "Denoising strength": ("strength", float),
    "Clip skip": ("clip_skip", int),
    "Mask blur": ("mask_blur", float),
    "Masked area padding": ("inpaint_padding", int),
    "Masked content": ("inpaint_fill", str),
    "Mask mode": ("mask_invert", lambda mode: mode == "Inpaint not masked"),
    "Inpaint area": ("inpaint_area", lambda area: "masked" if area == "Only masked" else "whole"),
    "Hires upscaler": ("second_pass_upscaler", lambda name: _upscaler(name)),
    "Hires upscale": ("second_pass", float),
    "Hires steps": ("second_pass_steps", int),
}
"""A1111's keys, and the options that they are."""


def values_from_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Options by name, of the settings that a generated picture holds; one picture of its batch.

    Its prompts have their styles and LoRAs already.
    """
    names = GenerationOptions.model_fields.keys() - {"styles", "loras"}
    values = {name: settings[name] for name in names if settings.get(name) is not None}
    if isinstance(values.get("outpaint"), list):
        values["outpaint"] = tuple(values["outpaint"])
    return values | {"batch_size": 1, "batch_count": 1}


def values_from_infotext(text: str) -> dict[str, Any]:
    """Options by name, of an infotext; what is unknown or cannot be read is left out."""
    infotext = Infotext.parse(text)
    values: dict[str, Any] = {"prompt": infotext.prompt, "negative_prompt": infotext.negative_prompt}
    for key, (name, convert) in KEYS.items():
        try:
            values[name] = convert(infotext.parameters[key])
        except (KeyError, ValueError, OptionError):
            continue
    if size := SIZE.fullmatch(infotext.parameters.get("Size", "")):
        values |= {"width": _allowed(int(size[1])), "height": _allowed(int(size[2]))}
    if "second_pass" in values and "strength" in values:
        values["second_pass_strength"] = values.pop("strength")
    return values


def _upscaler(name: str) -> str:
    """Ours for A1111's name of an upscaler."""
    return next((ours for ours in ("latent", "Lanczos") if ours.lower() in name.lower()), "SeeSR")


def _allowed(side: int) -> int:
    """The side nearest to this one that a picture may have."""
    return min(MAX_SIDE, max(MIN_SIDE, round(side / 8) * 8))
