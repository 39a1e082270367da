"""The routes of OpenAI's API: generations, edits, and the list of models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Body
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from seesr.generation.options import MAX_PROMPT
from seesr.jobs import GenerationRequest
from seesr.studio.api.dependencies import AnyModels, AnyStudio, AnyUser
from seesr.studio.api.encoding import to_base64
from seesr.studio.api.openai.errors import FAILURES, FieldError, OpenAIRoute
from seesr.studio.api.openai.fields import ImageRequest
from seesr.studio.api.openai.stream import PictureStream, failure_of, size_of
from seesr.studio.api.openai.translate import checkpoint_name, translate, translate_edit
from seesr.studio.api.running import run_to_end
from seesr.studio.errors import JobFailedError
from seesr.studio.records import PictureRecord, User
from seesr.studio.studio import Studio

PREFIX = "/v1"
OWNER = "seesr"
router = APIRouter(prefix=PREFIX, tags=["openai"], route_class=OpenAIRoute, responses=FAILURES)
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The pictures, or with `stream` their events.", "content": {"text/event-stream": {}}}
}
_EDIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompt"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "mask": {"type": "string", "format": "binary", "description": "A picture; alpha 0 is edited."},
                        **{name: {"type": "string"} for name in ImageRequest.model_fields},
                    },
                }
            }
        },
    }
}


@router.post("/images/generations", responses=_PICTURES)
async def generate(
    request: Request, studio: AnyStudio, user: AnyUser, models: AnyModels, body: Annotated[ImageRequest, Body()]
) -> Response:
    """Makes pictures of a prompt."""
    known = await run_sync(models.known)
    return await _answer(request, studio, user, body, translate(body, known), {}, "image_generation")


@router.post("/images/edits", openapi_extra=_EDIT_BODY, responses=_PICTURES)
async def edit(request: Request, studio: AnyStudio, user: AnyUser, models: AnyModels) -> Response:
    """Changes a picture: where the mask is transparent; without one, where the picture is, or all of it."""
    async with request.form(max_files=4, max_fields=100, max_part_size=4 * MAX_PROMPT) as form:
        files = {name: file for name, file in form.multi_items() if isinstance(file, UploadFile)}
        count = sum(isinstance(file, UploadFile) and name != "mask" for name, file in form.multi_items())
        image = files.get("image") or files.get("image[]")
        if image is None or count > 1:
            raise FieldError(f"{count} pictures were sent as image; send one.", "image")
        content, mask = await image.read(), await files["mask"].read() if "mask" in files else None
        fields = {name: value for name, value in form.items() if isinstance(value, str) and value != ""}
    try:
        body = ImageRequest.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    known = await run_sync(models.known)
    job, inputs = await run_sync(partial(translate_edit, body, known, content, mask, studio.limits))
    return await _answer(request, studio, user, body, job, inputs, "image_edit")


@router.get("/models")
def list_models(user: AnyUser, models: AnyModels) -> dict[str, Any]:
    """The checkpoints."""
    del user
    return {"object": "list", "data": [_model(entry.name) for entry in models.checkpoints()]}


@router.get("/models/{model:path}")
def model(user: AnyUser, models: AnyModels, model: str) -> dict[str, Any]:
    """A checkpoint."""
    del user
    known = models.known()
    return _model(checkpoint_name(model, known) or known.checkpoint("").name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": OWNER}


async def _answer(
    request: Request,
    studio: Studio,
    user: User,
    body: ImageRequest,
    job: GenerationRequest,
    inputs: Mapping[str, bytes],
    kind: str,
) -> Response:
    if body.stream:
        submitted = await run_sync(studio.submit, user, job, inputs)
        stream = PictureStream(studio, user, body, submitted, kind)
        return StreamingResponse(stream.run(), media_type="text/event-stream")
    ended = await run_to_end(request, studio, user, job, inputs)
    if ended.state != "done":
        raise JobFailedError(failure_of(ended.state, ended.error))
    pictures = await run_sync(studio.contents, user, ended)
    data = [_image(request, body, picture, content) for picture, content in pictures]
    answer = {"created": int(ended.created.timestamp()), "data": data, "output_format": body.suffix}
    return JSONResponse(answer | ({"size": size_of(pictures[0][0])} if pictures else {}))


def _image(request: Request, body: ImageRequest, picture: PictureRecord, content: bytes) -> dict[str, str]:
    if body.response_format == "url":
        return {"url": str(request.url_for("picture_file", picture=picture.id))}
    return {"b64_json": to_base64(content)}
