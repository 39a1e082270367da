"""The fields of a request for pictures.

Four beside OpenAI's own are taken: `seed`, `steps`, `negative_prompt` and `guidance_scale`. Others are ignored.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, Field

from seesr.generation.options import MAX_PROMPT, MAX_SIDE, MIN_SIDE
from seesr.images.sizes import Size
from seesr.studio.api.openai.errors import FieldError

SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
MAX_PICTURES, MAX_PARTIAL_IMAGES = 10, 3


class ImageRequest(BaseModel):
    """What OpenAI's clients send for pictures."""

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT)
    model: str | None = Field(default=None, max_length=200, description="Name of a checkpoint; none: the default one.")
    n: int | None = Field(default=None, ge=1, le=MAX_PICTURES, description="Pictures.")
    size: str | None = Field(
        default=None, max_length=20, description="WIDTHxHEIGHT in pixels, in steps of 8; auto: as the model or picture has."
    )
    response_format: Literal["url", "b64_json"] | None = Field(
        default=None, description="b64_json by default; an address of `url` takes the same key."
    )
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(default=None, ge=0, le=100, description="Quality of jpeg and webp.")
    background: Literal["auto", "opaque", "transparent"] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(default=None, ge=0, le=MAX_PARTIAL_IMAGES, description="Previews of each picture.")
    seed: int | None = None
    steps: int | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None

    @property
    def suffix(self) -> str:
        """The output format as OpenAI names it."""
        return self.output_format or "png"

    def dimensions(self) -> Size | None:
        """Width and height; None where they are left open.

        Raises:
            FieldError: they are not a size, or outside the limits.
        """
        if self.size in (None, "", "auto"):
            return None
        match = SIZE.fullmatch(self.size or "")
        sides = (int(match[1]), int(match[2])) if match else (0, 0)
        if any(not MIN_SIDE <= side <= MAX_SIDE or side % 8 for side in sides):
            raise FieldError(
                f"size is {self.size!r}; give auto, or WIDTHxHEIGHT, each from {MIN_SIDE} to {MAX_SIDE} in steps of 8.",
                "size",
            )
        return sides
