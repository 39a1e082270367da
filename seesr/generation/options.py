"""The options for making pictures: name, bounds, default and help of each, which every surface reads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from seesr.generation.lora_tags import MAX_LORAS, LoraTag
from seesr.generation.samplers import SAMPLERS, parse_sampler
from seesr.options import OptionModel

MAX_SEED = 2**32 - 1
MIN_SIDE, MAX_SIDE = 64, 2048
"""Pixels of a side of a picture that is made."""
MAX_PROMPT = 20_000
"""Characters of a prompt."""


class GenerationOptions(OptionModel):
    """The options for one or several pictures of one prompt. Immutable."""

    prompt: str = Field(default="", max_length=MAX_PROMPT, description="What the picture shows, in the A1111 prompt syntax.")
    negative_prompt: str = Field(default="", max_length=MAX_PROMPT, description="What it is steered away from.")
    styles: tuple[str, ...] = Field(default=(), description="Names of styles of styles.csv, applied to both prompts.")
    loras: tuple[str, ...] = Field(
        default=(), max_length=MAX_LORAS, description="LoRAs of models/loras with their weights, such as `name:0.8`."
    )
    steps: int | None = Field(
        default=None, ge=1, le=150, description="Denoising steps; the default depends on the checkpoint."
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=30,
        description="How strongly the prompt guides; up to 1 without the negative prompt; the default is the checkpoint's.",
    )
    sampler: str | None = Field(default=None, max_length=60, description="Sampler; the default is the checkpoint's.")
    schedule: str = Field(default="Automatic", max_length=60, description="Noise schedule of the sampler.")
    width: int | None = Field(
        default=None, ge=MIN_SIDE, le=MAX_SIDE, multiple_of=8, description="Width in pixels, in steps of 8."
    )
    height: int | None = Field(
        default=None, ge=MIN_SIDE, le=MAX_SIDE, multiple_of=8, description="Height in pixels, in steps of 8."
    )
    seed: int | None = Field(
        default=None, ge=-1, le=MAX_SEED, description="Seed of the first picture; by default, or with -1, one is drawn."
    )
    variation_seed: int | None = Field(
        default=None, ge=-1, le=MAX_SEED, description="Seed of the noise that is mixed in; by default, or with -1, drawn."
    )
    variation_strength: float = Field(default=0.0, ge=0, le=1, description="Share of the variation's noise.")
    batch_size: int = Field(default=1, ge=1, le=16, description="Pictures that are made together where memory suffices.")
    batch_count: int = Field(default=1, ge=1, le=100, description="Batches that are made one after the other.")
    clip_skip: int = Field(
        default=1, ge=1, le=12, description="Layer of the text encoder, counted from its end; 1 is the last."
    )
    strength: float = Field(default=0.75, ge=0, le=1, description="How much of an input picture is changed; 0 is nothing.")
    mask_blur: float = Field(default=4.0, ge=0, le=64, description="Radius in pixels by which the mask's edge is softened.")
    mask_invert: bool = Field(default=False, description="Paint anew what the mask shows black instead of white.")
    inpaint_area: Literal["whole", "masked"] = Field(
        default="whole", description="Work on the whole picture, or on what is masked alone, at the full size."
    )
    inpaint_padding: int = Field(default=32, ge=0, le=512, description="Pixels around what is masked that are looked at.")
    inpaint_fill: Literal["fill", "original", "latent noise", "latent nothing"] = Field(
        default="original", description="What the masked part begins from."
    )
    outpaint: tuple[int, int, int, int] | None = Field(
        default=None, description="Pixels that are added on the left, at the top, on the right and at the bottom."
    )
    second_pass: float | None = Field(
        default=None, ge=1, le=4, description="Enlarge by this factor, then image to image at the larger size."
    )
    second_pass_upscaler: Literal["SeeSR", "Lanczos", "latent"] = Field(
        default="SeeSR", description="What enlarges before the second pass."
    )
    second_pass_strength: float = Field(default=0.4, ge=0, le=1, description="Strength of the second pass.")
    second_pass_steps: int | None = Field(
        default=None, ge=1, le=150, description="Steps of the second pass; by default those of the first."
    )
    upscale: float | None = Field(default=None, ge=1, le=8, description="Enlarge the finished picture by SeeSR.")

    @model_validator(mode="after")
    def _check_outpaint(self) -> Self:
        sides = self.outpaint or ()
        if any(not 0 <= side <= 1024 for side in sides) or (sides and not any(sides)):
            raise PydanticCustomError(
                "outpaint", "outpaint is {sides}; give four numbers from 0 to 1024, not all 0", {"sides": sides}
            )
        return self

    @model_validator(mode="after")
    def _check_sampler(self) -> Self:
        parse_sampler(self.sampler or SAMPLERS[0].name, self.schedule)
        return self

    @model_validator(mode="after")
    def _check_loras(self) -> Self:
        for lora in self.loras:
            LoraTag.parse(lora)
        return self

    @property
    def count(self) -> int:
        """Pictures in all."""
        return self.batch_size * self.batch_count
