"""The routes of the extension sd-webui-controlnet, beside `/sdapi/v1`; they are there while there are ControlNets."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from seesr.generation.controls import PREPROCESSORS
from seesr.studio.api.dependencies import AnyModels, AnyStudio, AnyUser
from seesr.studio.api.encoding import encode, to_base64
from seesr.studio.api.sdapi.errors import RESPONSES, SdapiRoute, UnprocessableError
from seesr.studio.api.sdapi.fields import Detect
from seesr.studio.api.sdapi.pictures import from_base64, require_picture
from seesr.studio.errors import NotFoundError

VERSION = 2
"""Of the extension's units, in the form that is read here."""
IN_WORKER = "depth"
"""Needs a network, which is not in this process."""
MAX_IMAGES, MAX_PIXELS = 8, 16_000_000
"""Of a request, and of each picture: maps are made in the web process."""


def _controlnets(models: AnyModels, user: AnyUser) -> list[str]:
    del user
    if not (names := models.controlnets()):
        raise NotFoundError("there are no ControlNets; put some into models/controlnet.")
    return names


Names = Annotated[list[str], Depends(_controlnets)]
router = APIRouter(prefix="/controlnet", tags=["sdapi"], route_class=SdapiRoute, responses=RESPONSES)


@router.get("/version")
def version(names: Names) -> dict[str, int]:
    """The version of the extension that is followed."""
    del names
    return {"version": VERSION}


@router.get("/model_list")
def model_list(names: Names) -> dict[str, list[str]]:
    """The ControlNets."""
    return {"model_list": names}


@router.get("/module_list")
def module_list(names: Names) -> dict[str, Any]:
    """What makes maps of pictures."""
    del names
    return {"module_list": list(PREPROCESSORS), "module_detail": {}}


@router.post("/detect")
def detect(body: Detect, names: Names, studio: AnyStudio) -> dict[str, Any]:
    """The maps of pictures."""
    from seesr.generation.preprocessors import canny  # here: it loads scikit-image

    del names
    module = body.controlnet_module.lower()
    if module not in PREPROCESSORS or module == IN_WORKER:
        here = ", ".join(name for name in PREPROCESSORS if name != IN_WORKER)
        raise UnprocessableError(f"maps of {module[:40]!r} are not made by this route; it makes: {here}.")
    images = list[str]()
    texts = body.controlnet_input_images or body.controlnet_images
    if len(texts) > MAX_IMAGES:
        raise UnprocessableError(f"{len(texts)} images were sent; send at most {MAX_IMAGES} at once.")
    limits = replace(studio.limits, input_pixels=min(MAX_PIXELS, studio.limits.input_pixels))
    for text in texts:
        picture = require_picture(from_base64(text, "the image"), "the image", limits)
        images.append(to_base64(encode(canny(picture) if module == "canny" else picture, "PNG")))
    return {"images": images, "info": "Success"}
