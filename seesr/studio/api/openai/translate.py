"""From requests of OpenAI's API to jobs: pure, without the studio."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from seesr.errors import OptionError
from seesr.generation.options import GenerationOptions
from seesr.images.encoded import EncodedImage
from seesr.images.read import read_picture
from seesr.jobs import GenerationRequest, content_hash
from seesr.options import Limits, SaveOptions
from seesr.studio.api.encoding import encode
from seesr.studio.api.model_lists import Known
from seesr.studio.api.openai.errors import FieldError, ModelNotFoundError
from seesr.studio.api.openai.fields import ImageRequest
from seesr.studio.errors import UnknownNameError

FOREIGN_MODELS = re.compile(r"(dall-e|gpt-image|chatgpt-image|seesr\b)", re.IGNORECASE)
"""Names that clients send of their own accord; they mean the default checkpoint."""
FORMATS: Mapping[str, Literal["png", "jpg", "webp"]] = {"png": "png", "jpeg": "jpg", "webp": "webp"}


def checkpoint_name(name: str | None, known: Known) -> str | None:
    """Name of a checkpoint as jobs have it; None is the default one.

    Raises:
        ModelNotFoundError: there is none.
    """
    if not name or FOREIGN_MODELS.match(name):
        return None
    try:
        return known.checkpoint(name).name
    except UnknownNameError as error:
        raise ModelNotFoundError(str(error)) from None


def translate(body: ImageRequest, known: Known, **changes: Any) -> GenerationRequest:
    """The job of a request; `changes` are options or pictures of it."""
    if body.background == "transparent":
        raise FieldError("pictures with a transparent background are not made; leave background out.", "background")
    width, height = body.dimensions() or (None, None)
    pictures = {name: changes.pop(name) for name in ("task", "image", "mask") if name in changes}
    values = {"width": width, "height": height, "batch_size": body.n or 1, **changes}
    for name in ("prompt", "negative_prompt", "seed", "steps", "guidance_scale"):
        if (value := getattr(body, name)) is not None:
            values[name] = value
    saving: dict[str, Any] = {"format": FORMATS[body.suffix]}
    if body.output_compression is not None:
        saving["quality"] = max(1, body.output_compression)
    try:
        options = GenerationOptions(**values)
    except OptionError as error:
        raise FieldError(str(error), str(error).partition(" ")[0]) from None
    return GenerationRequest(
        options=options,
        saving=SaveOptions(**saving),
        checkpoint=checkpoint_name(body.model, known),
        **pictures,
    )


def translate_edit(
    body: ImageRequest, known: Known, content: bytes, mask: bytes | None, limits: Limits
) -> tuple[GenerationRequest, dict[str, bytes]]:
    """The job of an edit, and its pictures by content hash.

    Raises:
        FieldError: the mask has no transparency, or not the size of the picture.
        InputError: one of them is no picture, or exceeds a limit.
    """
    picture = read_picture(EncodedImage(content, "the image"), limits)
    alpha = picture.alpha
    if alpha is not None:
        # Its colours alone: what is transparent is to be seen when it is painted.
        content = encode(picture.rgb, "PNG")
    if mask is not None:
        alpha = read_picture(EncodedImage(mask, "the mask"), limits).alpha
        if alpha is None:
            raise FieldError("the mask has no transparent part; make transparent what is to be edited.", "mask")
        if alpha.size != picture.rgb.size:
            width, height = picture.rgb.size
            raise FieldError(
                f"the mask is {alpha.width}x{alpha.height}, the image {width}x{height}; send a mask of its size.", "mask"
            )
    if alpha is None:
        request = translate(body, known, task="image to image", image=content_hash(content))
        return request, {content_hash(content): content}
    painted = encode(alpha, "PNG")
    inputs = {content_hash(content): content, content_hash(painted): painted}
    # Alpha as brightness, of which black is painted.
    pictures = {"task": "inpainting", "image": content_hash(content), "mask": content_hash(painted)}
    return translate(body, known, mask_invert=True, **pictures), inputs
