"""OpenAI's API of images, as its clients speak it: generations, edits, and the list of models.

Four fields beside OpenAI's own are taken: `seed`, `steps`, `negative_prompt` and `guidance_scale`. Others are ignored.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Body
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from seesr.errors import OptionError, SeeSRError
from seesr.generation.options import MAX_PROMPT, MAX_SIDE, MIN_SIDE, GenerationOptions
from seesr.images.encoded import EncodedImage
from seesr.images.read import read_picture
from seesr.images.sizes import Size
from seesr.jobs import ENDS, GenerationRequest, JobEvent, content_hash
from seesr.options import Limits, SaveOptions, lower_first
from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.failures import MEANINGS
from seesr.studio.api.running import run_to_end
from seesr.studio.api.sdapi.dependencies import AnyModels
from seesr.studio.api.sdapi.models import Known
from seesr.studio.door import openai_error
from seesr.studio.errors import JobFailedError, NotFoundError, StudioError
from seesr.studio.records import Job, PictureRecord, User
from seesr.studio.studio import Studio

FOREIGN_MODELS = re.compile(r"(dall-e|gpt-image|chatgpt-image|seesr\b)", re.IGNORECASE)
"""Names that clients send of their own accord; they mean the default checkpoint."""
OWNER = "seesr"
SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
MAX_PICTURES, MAX_PARTIAL_IMAGES = 10, 3
FORMATS: Mapping[str, Literal["png", "jpg", "webp"]] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
PING_SECONDS = 15.0
"""After so long without an event a stream says that it lives."""
NO_RETRY = {"x-should-retry": "false"}
"""Tells OpenAI's clients not to send a request again that failed once it was run."""
NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


class FieldError(StudioError):
    """A field cannot be honoured."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFoundError(NotFoundError):
    """There is no such checkpoint."""

    param = "model"


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


class OpenAIRoute(APIRoute):
    """A route that tells errors as OpenAI does."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except SeeSRError as error:
                status = error.status if isinstance(error, StudioError) else 400
                headers = NO_RETRY if isinstance(error, JobFailedError) else None
                return JSONResponse(openai_error(error, status, getattr(error, "param", None)), status, headers)
            except (RequestValidationError, ValidationError) as error:
                first = error.errors()[0]
                param = next((part for part in reversed(first["loc"]) if isinstance(part, str) and part != "body"), None)
                message = f"{param or 'the body'}: {lower_first(first['msg'])}."
                return JSONResponse(openai_error(message, 400, param), 400)
            except HTTPException as error:
                return JSONResponse(openai_error(f"{error.detail}", error.status_code), error.status_code)

        return handle_errors


class OpenAIError(BaseModel):
    """What went wrong, in one sentence, and where."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorAnswer(BaseModel):
    """The answer of every request that fails."""

    error: OpenAIError


PREFIX = "/v1"
FAILURES: dict[int | str, dict[str, Any]] = {
    **{status: {"model": OpenAIErrorAnswer, "description": meaning} for status, meaning in MEANINGS.items()},
    422: {"description": "Never: it is 400 here."},
    500: {"model": OpenAIErrorAnswer, "description": "The job failed."},
}
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
    return await _answer(request, studio, user, body, _translate(body, known), {}, "image_generation")


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
    body = ImageRequest.model_validate(fields)
    known = await run_sync(models.known)
    job, inputs = await run_sync(partial(_translate_edit, body, known, content, mask, studio.limits))
    return await _answer(request, studio, user, body, job, inputs, "image_edit")


@router.get("/models")
def list_models(user: AnyUser, models: AnyModels) -> dict[str, Any]:
    """The checkpoints."""
    del user
    return {"object": "list", "data": [_model(entry.name) for entry in models.known().checkpoints]}


@router.get("/models/{model:path}")
def model(user: AnyUser, models: AnyModels, model: str) -> dict[str, Any]:
    """A checkpoint."""
    del user
    return _model(_checkpoint(model, models.known()) or models.known().checkpoints[0].name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": OWNER}


def _checkpoint(name: str | None, known: Known) -> str | None:
    """Name of a checkpoint as jobs have it; None is the default one.

    Raises:
        ModelNotFoundError: there is none.
    """
    if not name or FOREIGN_MODELS.match(name):
        return None
    try:
        return known.checkpoint(name).name
    except NotFoundError as error:
        raise ModelNotFoundError(str(error)) from None


def _translate(body: ImageRequest, known: Known, **changes: Any) -> GenerationRequest:
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
        checkpoint=_checkpoint(body.model, known),
        **pictures,
    )


def _translate_edit(
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
        content = _encode(picture.rgb, "png")
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
        request = _translate(body, known, task="image to image", image=content_hash(content))
        return request, {content_hash(content): content}
    painted = _encode(alpha, "png")
    inputs = {content_hash(content): content, content_hash(painted): painted}
    # Alpha as brightness, of which black is painted.
    pictures = {"task": "inpainting", "image": content_hash(content), "mask": content_hash(painted)}
    return _translate(body, known, mask_invert=True, **pictures), inputs


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
        stream = _Stream(studio, user, body, submitted, kind)
        return StreamingResponse(stream.run(), media_type="text/event-stream")
    ended = await run_to_end(request, studio, user, job, inputs)
    if ended.state != "done":
        raise JobFailedError(_reason(ended.state, ended.error))
    pictures = await run_sync(studio.contents, user, ended)
    data = [_image(request, body, picture, content) for picture, content in pictures]
    answer = {"created": int(ended.created.timestamp()), "data": data, "output_format": body.suffix}
    return JSONResponse(answer | ({"size": _size(pictures[0][0])} if pictures else {}))


def _image(request: Request, body: ImageRequest, picture: PictureRecord, content: bytes) -> dict[str, str]:
    if body.response_format == "url":
        return {"url": str(request.url_for("picture_file", picture=picture.id))}
    return {"b64_json": base64.b64encode(content).decode()}


@dataclass
class _Stream:
    """The events of a job as OpenAI streams them; the job is cancelled when the client goes away."""

    studio: Studio
    user: User
    body: ImageRequest
    job: Job
    kind: str
    fraction: float = 0.0
    """Of the picture that is made, how much is done."""
    previews: dict[int, int] = field(default_factory=dict)
    """How many were sent, by picture."""

    async def run(self) -> AsyncIterator[bytes]:
        after, is_ended = 0, False
        try:
            while not is_ended:
                events = await run_sync(self.studio.events_async, self.user, self.job.id, after, PING_SECONDS)
                async with aclosing(events):
                    async for event in events:
                        after, is_ended = event.sequence, event.kind in ENDS
                        for part in await self._parts(event):
                            yield part
                if not is_ended:
                    yield b": waiting\n\n"
        finally:
            if not is_ended:
                with anyio.CancelScope(shield=True):
                    await run_sync(self.studio.cancel, self.user, self.job.id)

    async def _parts(self, event: JobEvent) -> Sequence[bytes]:
        data = event.data
        match event.kind:
            case "progress":
                self.fraction = (data.get("step") or 0) / (data.get("steps") or 1)
            case "preview" if event.content is not None and self._is_wanted(data["picture"]):
                index = self.previews.get(data["picture"], 0)
                self.previews[data["picture"]] = index + 1
                content = await run_sync(_encoded_as, event.content, self.body.suffix)
                return [self._part("partial_image", content, self.body.size or "auto", partial_image_index=index)]
            case "picture":
                picture, path = await run_sync(self.studio.picture_content, self.user, data["id"])
                content = await run_sync(path.read_bytes)
                return [self._part("completed", content, _size(picture), usage=NO_USAGE)]
            case "failed" | "cancelled":
                error = openai_error(_reason(event.kind, data.get("error")), JobFailedError.status)
                return [_sse("error", error)]
            case _:
                pass
        return []

    def _is_wanted(self, picture: int) -> bool:
        """Whether the next preview of a picture is due: they are spread over its steps."""
        wanted, sent = self.body.partial_images or 0, self.previews.get(picture, 0)
        return sent < wanted and self.fraction >= sent / (wanted + 1)

    def _part(self, name: str, content: bytes, size: str, **more: Any) -> bytes:
        values = {
            "type": f"{self.kind}.{name}",
            "b64_json": base64.b64encode(content).decode(),
            "created_at": int(self.job.created.timestamp()),
            "size": size,
            "quality": "auto",
            "background": "opaque",
            "output_format": self.body.suffix,
        }
        return _sse(f"{self.kind}.{name}", values | more)


def _sse(name: str, values: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(values)}\n\n".encode()


def _reason(state: str, error: str | None) -> str:
    return error or ("the job was cancelled." if state == "cancelled" else "the job was interrupted; send it again.")


def _size(picture: PictureRecord) -> str:
    return f"{picture.width}x{picture.height}"


def _encode(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def _encoded_as(content: bytes, format: str) -> bytes:
    """A preview, which is one of ours, in the format that was asked for."""
    with Image.open(io.BytesIO(content)) as image:
        return _encode(image.convert("RGB"), format)
