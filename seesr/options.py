"""All options, limits and presets with type, bounds, default and help text; the command and the service use them."""

from __future__ import annotations

import os
import re
import reprlib
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from seesr.errors import OptionError

DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""Supported precisions; float16 only on GPUs."""
PRESETS: dict[str, dict[str, Any]] = {
    "speed": {"steps": 1},
    "quality": {"steps": 4},
    "memory": {"vae_tile": 32, "tile": 64},
}
"""The options that each preset sets; an option that is given explicitly takes precedence."""


def validation_message(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """What the first of the errors is, in one sentence; of an unknown option of `model` with the valid ones."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        valid = f"; valid options: {', '.join(model.model_fields)}" if model else ""
        return f"unknown option {name!r}{valid}."
    if not first["loc"]:  # several options do not fit each other: the message names them
        return f"{first['msg']}."
    return f"{name} is {reprlib.repr(first['input'])}: {lower_first(first['msg'])}."


class OptionModel(BaseModel):
    """A pydantic model that raises `OptionError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        """Raises OptionError, which names the first unknown option or invalid value."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise OptionError(validation_message(error, type(self))) from None

    @classmethod
    def make(cls, **values: Any) -> Self:
        """The options `values`; a value of None stands for the default.

        Raises:
            OptionError: an option is unknown, or a value is invalid; the message names the first one.
        """
        return cls(**{name: value for name, value in values.items() if value is not None})

    @classmethod
    def describe(cls, name: str) -> str:
        """Help text of the option `name`."""
        return cls.model_fields[name].description or ""

    @classmethod
    def bounds(cls, name: str) -> tuple[float | None, float | None]:
        """(minimum, maximum) of the option `name`; None where there is no bound."""
        metadata = cls.model_fields[name].metadata
        low = next((item.ge for item in metadata if hasattr(item, "ge")), None)
        high = next((item.le for item in metadata if hasattr(item, "le")), None)
        return low, high

    @classmethod
    def choices(cls, name: str) -> tuple[str | int, ...]:
        """The allowed values of the option `name`; empty where it is not an enumeration."""
        types = [cls.model_fields[name].annotation, *get_args(cls.model_fields[name].annotation)]
        return next((get_args(choice) for choice in types if get_origin(choice) is Literal), ())


class Options(OptionModel):
    """The options for upscaling one picture. Immutable."""

    scale: float = Field(default=4.0, ge=1, le=8, description="Output side over input side; may be fractional.")
    max_side: int | None = Field(
        default=None, ge=16, le=65535, description="Length of the output's longer side in pixels; scale is then ignored."
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="Denoising steps: 1 is fastest, 4 adds most detail; the default depends on the weights, usually 2.",
    )
    prompt: str = Field(
        default="", max_length=1000, description="Description of the picture in your own words; the tags are appended."
    )
    tags: bool = Field(
        default=True, description="Add the tags that RAM (Recognize Anything) recognises in the picture to the prompt."
    )
    conditioning_scale: float = Field(
        default=1.0, ge=0, le=2, description="Strength of the ControlNet; lower values invent more detail."
    )
    kds: bool = Field(
        default=False,
        description="Kernel density steering: several particles, moved towards what most of them agree on; slower.",
    )
    kds_particles: int = Field(default=10, ge=1, le=16, description="Number of particles of kernel density steering.")
    kds_bandwidth: float | None = Field(
        default=None,
        ge=0.001,
        le=1000,
        description="Bandwidth of its kernel: large is nearer the mean, small keeps detail; else the median distance.",
    )
    kds_patch: int = Field(default=2, ge=1, le=16, description="Side of its patches in latent pixels.")
    clean: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the cleaner's work that is taken: it removes noise, blur and JPEG blocks; 0 keeps grain.",
    )
    edges: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Edge enhancement before upscaling: strengthens details but not noise; 0 is off.",
    )
    color_fix: Literal["wavelet", "lab", "adain", "none"] = Field(
        default="wavelet", description="Method that restores the input's colours: wavelet, lab, adain or none."
    )
    sharpen: float = Field(default=0.0, ge=0, le=2, description="Strength of an unsharp mask on the result; 0 is off.")
    bits: Literal[8, 10, 12, 16] = Field(
        default=8, description="Bits per channel of the result: 8; 16 for png and tiff; 10 or 12 for avif."
    )
    tile: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="Side of the diffusion tiles in latent pixels, from 16; 0: no tiling; by default as memory allows.",
    )
    tile_overlap: int | None = Field(
        default=None,
        ge=0,
        le=512,
        description="Overlap of diffusion tiles in latent pixels, at most half a tile; by default a third.",
    )
    tile_tags: bool = Field(default=False, description="Let RAM tag the part of the picture that each tile covers.")
    vae_tile: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="Side of the VAE tiles in latent pixels, from 16; 0: no tiling; by default as memory allows.",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**32 - 1,
        description="The same seed gives the same picture; by default a random seed is drawn and reported.",
    )

    @model_validator(mode="after")
    def _check_tiles(self) -> Self:
        for name in ("tile", "vae_tile"):
            side = getattr(self, name)
            if side is not None and 0 < side < 16:
                raise PydanticCustomError(
                    "tile", "{name} is {side}; give 0 (no tiling) or at least 16", {"name": name, "side": side}
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
        """Particles per picture; one without kernel density steering."""
        return self.kds_particles if self.kds else 1

    @classmethod
    def make(cls, preset: str | None = None, **values: Any) -> Self:
        """The options of a preset, overridden by `values`; a value of None means the preset's value, else the default.

        Raises:
            OptionError: the preset or an option is unknown, or a value is invalid; the message names the first one.
        """
        if preset is not None and preset not in PRESETS:
            raise OptionError(f"unknown preset {preset!r}; valid presets: {', '.join(PRESETS)}.")
        explicit = {name: value for name, value in values.items() if value is not None}
        return super().make(**(PRESETS.get(preset or "", {}) | explicit))


class ReadOptions(OptionModel):
    """The options for reading an input."""

    frames: Literal["first", "all"] = Field(
        default="first",
        description="all: every frame of an animation, to png, webp or gif, and every page of a TIFF, to tiff.",
    )


class SaveOptions(OptionModel):
    """The options for writing a result."""

    format: Literal["png", "jpg", "webp", "gif", "tiff", "bmp", "avif", "jxl"] | None = Field(
        default=None,
        description="png, jpg, webp, tiff, bmp, avif or jxl, gif with all frames; by default the output's suffix, or png.",
    )
    quality: int = Field(
        default=95, ge=1, le=100, description="Quality of jpg, webp and avif: 100 is best and gives the largest file."
    )
    metadata: bool = Field(default=True, description="Keep the input's metadata: camera, date, author, place, keywords.")

    @field_validator("format", mode="before")
    @classmethod
    def _normalise_format(cls, value: object) -> object:
        """`JPEG` and `.tif` are `jpg` and `tiff`."""
        if not isinstance(value, str):
            return value
        name = value.lower().removeprefix(".")
        return {"jpeg": "jpg", "tif": "tiff"}.get(name, name)


def lower_first(text: str) -> str:
    """A sentence for the middle of another; it keeps a first word in capitals, such as JSON."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


@dataclass(frozen=True)
class Limits:
    """Limits that who runs a service sets; each has an environment variable, such as SEESR_INPUT_BYTES."""

    input_bytes: int = 256_000_000
    """Maximum size of an input file, checked before it is read."""
    input_pixels: int = 64_000_000
    """Maximum width times height of an input, checked before it is decoded."""
    output_side: int = 8192
    """Maximum of the longer side of an output, in pixels."""
    seconds: int = 86_400
    """Maximum time per picture, checked at each stage and denoising step."""
    frames: int = 10_000
    """Maximum number of frames or pages of an input of which all are taken; the other limits hold for each of them."""

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits that variables such as `SEESR_INPUT_BYTES` set.

        Raises:
            OptionError: one of these variables is not a positive whole number.
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
    """Number of bytes in a size like `4GB`, `500MB` or `2GiB`; a number without a unit is in bytes.

    Raises:
        OptionError: `text` is not such a size, or is below one byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    size = float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " ") if match else 0
    if size < 1:
        raise OptionError(f"the memory limit is {text!r}; give a size like 4GB or 500MB.")
    return int(size)
