"""Every option, limit and preset once: name, type, bounds, default and help. All surfaces read them from here."""

from __future__ import annotations

import os
import re
import reprlib
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from seesr.errors import OptionError

DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""Precisions that may be asked for; float16 only of GPUs."""
PRESETS: dict[str, dict[str, Any]] = {
    "speed": {"steps": 1},
    "quality": {"steps": 4},
    "memory": {"vae_tile": 32, "tile": 64},
}
"""What each preset sets; an option given beside a preset wins."""


class _Checked(BaseModel):
    """Values checked together, with errors for users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        """Raises OptionError for an unknown option, or a value outside its bounds; the first one is named."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise OptionError(f"unknown option {name!r}; valid options: {', '.join(type(self).model_fields)}.") from None
            if first["type"] == "tile":
                raise OptionError(f"{first['msg']}.") from None
            raise OptionError(f"{name} is {reprlib.repr(first['input'])}: {_lower_first(first['msg'])}.") from None

    @classmethod
    def make(cls, **values: Any) -> Self:
        """Of `values`; a value of None means not given.

        Raises:
            OptionError: an unknown option, or a value outside its bounds; the first one is named.
        """
        return cls(**{name: value for name, value in values.items() if value is not None})

    @classmethod
    def describe(cls, name: str) -> str:
        """Help of the option `name`."""
        return cls.model_fields[name].description or ""

    @classmethod
    def bounds(cls, name: str) -> tuple[float | None, float | None]:
        """(lowest, highest) value of the option `name`; None is no bound."""
        metadata = cls.model_fields[name].metadata
        low = next((item.ge for item in metadata if hasattr(item, "ge")), None)
        high = next((item.le for item in metadata if hasattr(item, "le")), None)
        return low, high

    @classmethod
    def choices(cls, name: str) -> tuple[str, ...]:
        """The words that the option `name` may be; empty where it is none of several words."""
        kinds = [cls.model_fields[name].annotation, *get_args(cls.model_fields[name].annotation)]
        return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


class Options(_Checked):
    """How one picture is upscaled. Immutable; make variants with `Options.make`."""

    scale: float = Field(4.0, ge=1, le=8, description="Output side over input side; any number.")
    max_side: int | None = Field(None, ge=16, le=65535, description="Longer side of the output in pixels, instead of scale.")
    steps: int | None = Field(
        None,
        ge=1,
        le=4,
        description="Denoising steps: 1 is fastest, 4 adds most; left out: what the weights ask for, mostly 2.",
    )
    prompt: str = Field("", max_length=1000, description="What is in the picture, in your words; tags are added to it.")
    tags: bool = Field(True, description="Let RAM name what it sees and add it to the prompt.")
    conditioning_scale: float = Field(1.0, ge=0, le=2, description="How strongly the input steers: lower invents more.")
    kds: bool = Field(False, description="Kernel density steering: several tries, drawn to what most agree on; slower.")
    kds_particles: int = Field(10, ge=1, le=16, description="Tries of kernel density steering.")
    kds_bandwidth: float | None = Field(
        None,
        ge=0.001,
        le=1000,
        description="Width of its kernel: large is faithful, small keeps detail; left out: the median rule.",
    )
    kds_patch: int = Field(2, ge=1, le=16, description="Side of its patches in latent pixels.")
    edges: float = Field(
        0.0, ge=0, le=2, description="Edge enhancement before enlarging: makes details stronger, not noise; 0 is off."
    )
    color_fix: Literal["wavelet", "adain", "none"] = Field(
        "wavelet", description="How the input's colours are given back: wavelet, adain or none."
    )
    sharpen: float = Field(0.0, ge=0, le=2, description="Unsharp mask at the end; 0 is off.")
    tile: int | None = Field(
        None, ge=0, le=1024, description="Side of the diffusion's tiles in latent pixels; 0 is never, else at least 16."
    )
    tile_overlap: int | None = Field(
        None, ge=0, le=512, description="Latent pixels that neighbours share, at most half a tile; a third if left out."
    )
    tile_tags: bool = Field(False, description="Let RAM look at each tile's own part of the picture.")
    vae_tile: int | None = Field(
        None, ge=0, le=1024, description="Side of the VAE's tiles in latent pixels; 0 is never, else at least 16."
    )
    seed: int | None = Field(
        None, ge=0, le=2**32 - 1, description="Same seed, same picture; without one a seed is drawn and reported."
    )

    @model_validator(mode="after")
    def _tiles_make_sense(self) -> Self:
        for name in ("tile", "vae_tile"):
            side = getattr(self, name)
            if side is not None and 0 < side < 16:
                raise PydanticCustomError(
                    "tile", "{name} is {side}; give 0 (never) or at least 16", {"name": name, "side": side}
                )
        if self.tile and (self.tile_overlap or 0) > self.tile // 2:
            raise PydanticCustomError(
                "tile",
                "tile_overlap is {overlap}; it may be at most half of the tile ({half})",
                {"overlap": self.tile_overlap, "half": self.tile // 2},
            )
        return self

    @property
    def particles(self) -> int:
        """Tries of each picture; one without kernel density steering."""
        return self.kds_particles if self.kds else 1

    @classmethod
    def make(cls, preset: str | None = None, **values: Any) -> Self:
        """Options of a preset and of `values`; a value of None means not given.

        Raises:
            OptionError: an unknown preset or option, or a value outside its bounds; the first one is named.
        """
        if preset is not None and preset not in PRESETS:
            raise OptionError(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}.")
        given = {name: value for name, value in values.items() if value is not None}
        return super().make(**(PRESETS.get(preset or "", {}) | given))


class SaveOptions(_Checked):
    """How a result is written."""

    format: Literal["png", "jpg", "webp", "tiff", "bmp", "avif"] | None = Field(
        None, description="png, jpg, webp, tiff, bmp or avif; without it a file's suffix decides, in folders png."
    )
    quality: int = Field(95, ge=1, le=100, description="Of jpg, webp and avif: 100 is best and largest.")
    metadata: bool = Field(True, description="Keep what the input's file says: camera, date, author, place.")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


@dataclass(frozen=True)
class Limits:
    """What an operator lets users ask for; each is set by an environment variable named like it, in SEESR_ capitals."""

    input_bytes: int = 256_000_000
    """Size of an input's file, checked before it is read."""
    input_pixels: int = 64_000_000
    """Width times height of an input, checked before it is decoded."""
    output_side: int = 8192
    """Longest side of a result in pixels."""
    seconds: int = 86_400
    """Longest time for a picture, checked at each stage and step."""

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits with what `SEESR_INPUT_BYTES`, `SEESR_INPUT_PIXELS`, `SEESR_OUTPUT_SIDE` and `SEESR_SECONDS` say.

        Raises:
            OptionError: such a variable is not a positive whole number.
        """
        values = {}
        for limit in fields(cls):
            variable = f"SEESR_{limit.name.upper()}"
            text = os.environ.get(variable, "")
            if text:
                if not text.isdecimal() or int(text) == 0:
                    raise OptionError(f"{variable} is {text!r}; give a positive whole number.")
                values[limit.name] = int(text)
        return cls(**values)


def parse_bytes(text: str) -> int:
    """Bytes of a size like `4GB`, `500MB` or `2GiB`; a number alone is bytes.

    Raises:
        OptionError: it is no such size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    size = float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " ") if found else 0
    if size < 1:
        raise OptionError(f"the memory limit is {text!r}; give a size like 4GB or 500MB.")
    return int(size)
