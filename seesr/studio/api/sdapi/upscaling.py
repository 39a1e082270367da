"""From the requests for upscaling to jobs: pure, without the studio."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seesr.images.sizes import Size
from seesr.jobs import UPSCALE_METHODS, UpscaleMethod, UpscaleRequest, content_hash
from seesr.notes import Notes
from seesr.options import Limits, Options
from seesr.studio.api.sdapi.fields import Extras
from seesr.studio.api.sdapi.noting import NO_SCRIPT, note_unused, within
from seesr.studio.api.sdapi.pictures import require_picture
from seesr.studio.api.sdapi.user_options import UserOptions


@dataclass(frozen=True)
class Upscaling:
    """An extras request for one picture."""

    request: UpscaleRequest | None
    """None where the picture stays as it is."""
    inputs: dict[str, bytes]
    crop: Size | None
    """To which the result is cut at two sides; None: not at all."""
    notes: tuple[str, ...]


def upscaling(body: Extras, image: bytes, options: UserOptions, limits: Limits) -> Upscaling:
    """The job of an extras request for one picture.

    Raises:
        UnprocessableError: the picture cannot be read.
    """
    notes, size = Notes(), require_picture(image, "the picture", limits).size
    note_unused(body, notes)
    method = _method(body.upscaler_1, notes)
    if method is None:
        return Upscaling(None, {}, None, tuple(notes))
    if body.resize_mode == 1:
        to = max(1, body.upscaling_resize_w), max(1, body.upscaling_resize_h)
        longer = math.ceil(max(size) * max(to[0] / size[0], to[1] / size[1]))
        values = {"max_side": within(Options, "max_side", longer, "the longer side", notes)}
        # Never larger than what it is cut from: it is done in this process.
        share = min(1.0, values["max_side"] / longer)
        crop = (max(1, round(to[0] * share)), max(1, round(to[1] * share))) if body.upscaling_crop else None
    else:
        values = {"scale": within(Options, "scale", body.upscaling_resize, "upscaling_resize", notes)}
        crop = None
    request = UpscaleRequest(
        task="upscale", method=method, options=Options(**values), saving=options.saving(), image=content_hash(image)
    )
    return Upscaling(request, {request.image: image}, crop, tuple(notes))


def _method(name: str, notes: Notes) -> UpscaleMethod | None:
    words = name.strip().lower()
    if words in NO_SCRIPT:
        return None
    for known in UPSCALE_METHODS:
        if words == known.lower():
            return known
    notes.add("SeeSR enlarges in place of an upscaler that is not here")
    return "SeeSR"
