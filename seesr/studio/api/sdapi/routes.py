"""The routes of A1111's API that make pictures and look after what runs; a user sees and stops their own jobs alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Body
from starlette.requests import Request

from seesr.jobs import JobRequest, TagsRequest, content_hash
from seesr.options import Limits
from seesr.studio.api.dependencies import AnyModels, AnyStudio, AnyUser
from seesr.studio.api.encoding import to_base64
from seesr.studio.api.model_lists import Known, ModelLists
from seesr.studio.api.running import run_to_end
from seesr.studio.api.sdapi import answers, lists
from seesr.studio.api.sdapi.dependencies import SETTING, AnyOptions
from seesr.studio.api.sdapi.errors import RESPONSES, SdapiRoute
from seesr.studio.api.sdapi.fields import (
    Extras,
    ExtrasBatch,
    ExtrasSingle,
    Generation,
    ImageToImage,
    Interrogate,
    PngInfo,
    TextToImage,
)
from seesr.studio.api.sdapi.pictures import cropped, from_base64, require_picture, texts_of
from seesr.studio.api.sdapi.translate import Translated, image_to_image, text_to_image
from seesr.studio.api.sdapi.upscaling import upscaling
from seesr.studio.api.sdapi.user_options import CHECKPOINT, UserOptions
from seesr.studio.errors import ConflictError, UnknownNameError
from seesr.studio.records import Job, User
from seesr.studio.studio import Studio

PREFIX = "/sdapi/v1"
_making = APIRouter(tags=["sdapi"], route_class=SdapiRoute)


@_making.post("/txt2img")
async def txt2img(
    request: Request, body: TextToImage, studio: AnyStudio, user: AnyUser, models: AnyModels, options: AnyOptions
) -> dict[str, Any]:
    """Makes pictures of a prompt."""
    return await _generate(request, studio, user, models, body, partial(text_to_image, body, options))


@_making.post("/img2img")
async def img2img(
    request: Request, body: ImageToImage, studio: AnyStudio, user: AnyUser, models: AnyModels, options: AnyOptions
) -> dict[str, Any]:
    """Makes pictures of a picture, or of a part of one."""
    return await _generate(request, studio, user, models, body, partial(image_to_image, body, options))


@_making.post("/extra-single-image")
async def extra_single_image(
    request: Request, body: ExtrasSingle, studio: AnyStudio, user: AnyUser, options: AnyOptions
) -> dict[str, Any]:
    """Enlarges a picture."""
    image, notes = await _enlarge(request, studio, user, body, body.image, options)
    return {"image": image, "html_info": answers.html_info(notes)}


@_making.post("/extra-batch-images")
async def extra_batch_images(
    request: Request, body: ExtrasBatch, studio: AnyStudio, user: AnyUser, options: AnyOptions
) -> dict[str, Any]:
    """Enlarges pictures, one after the other."""
    images, all_notes = list[str](), dict[str, None]()
    for file in body.imageList:
        image, notes = await _enlarge(request, studio, user, body, file.data, options)
        images.append(image)
        all_notes |= dict.fromkeys(notes)
    return {"images": images, "html_info": answers.html_info(list(all_notes))}


@_making.post("/interrogate")
async def interrogate(request: Request, body: Interrogate, studio: AnyStudio, user: AnyUser) -> dict[str, str]:
    """What RAM finds in a picture."""
    image = await run_sync(_sent_image, body.image)
    await run_sync(require_picture, image, "the image", studio.limits)
    tags = TagsRequest(task="tags", image=content_hash(image))
    job = await _run(request, studio, user, tags, {tags.image: image})
    return {"caption": ", ".join(job.result.get("tags", {}))}


@_making.post("/png-info")
def png_info(body: PngInfo, studio: AnyStudio, user: AnyUser) -> dict[str, Any]:
    """How a picture was made, by its file."""
    del user
    image = from_base64(body.image, "the image")
    require_picture(image, "the image", studio.limits)
    return answers.png_info(studio.read_settings(image)["infotext"], texts_of(image))


@_making.get("/progress")
def progress(
    studio: AnyStudio,
    user: AnyUser,
    skip_current_image: bool = False,
    skipCurrentImage: bool = False,  # noqa: N803 as a client asks
) -> dict[str, Any]:
    """How far the user's own job is: the one that runs, else the next."""
    jobs = studio.jobs(user, ["running"]) or studio.jobs(user, ["pending"])
    if not jobs:
        return answers.progress(None, None, None)
    preview = None if skip_current_image or skipCurrentImage else studio.preview(user, jobs[-1].id)
    return answers.progress(jobs[-1], studio.progress(user, jobs[-1].id), preview.content if preview else None)


@_making.post("/interrupt")
def interrupt(studio: AnyStudio, user: AnyUser) -> dict[str, Any]:
    """Ends those of the user's own jobs that run."""
    studio.interrupt(user)
    return {}


@_making.post("/skip")
def skip(studio: AnyStudio, user: AnyUser) -> None:
    """Ends the picture that is made at this moment in each of the user's own jobs."""
    for job in studio.jobs(user, ["running"]):
        try:
            studio.skip(user, job.id)
        except ConflictError:  # it has ended meanwhile
            continue


@_making.get("/options")
def read_options(user: AnyUser, models: AnyModels, options: AnyOptions) -> dict[str, Any]:
    """The user's options."""
    del user
    return options.answer(models.known())


@_making.post("/options")
def change_options(
    studio: AnyStudio, user: AnyUser, models: AnyModels, options: AnyOptions, values: Annotated[dict[str, Any], Body()]
) -> None:
    """Changes some of the user's options; those that nobody knows, or that are only read, are dropped."""
    values = {name: value for name, value in values.items() if value is not None and name in UserOptions.model_fields}
    if CHECKPOINT in values:
        known = models.known()
        # A client that sends back all that it has read does not choose the default checkpoint by that.
        if (title := values.pop(CHECKPOINT)) != options.answer(known)[CHECKPOINT]:
            values[CHECKPOINT] = known.checkpoint(str(title)).name
    studio.set_setting(user, SETTING, options.changed(values).model_dump(exclude_unset=True))


router = APIRouter(prefix=PREFIX, responses=RESPONSES)
for part in (_making, lists.router):
    router.include_router(part)


async def _generate(
    request: Request,
    studio: Studio,
    user: User,
    models: ModelLists,
    body: Generation,
    translate: Callable[[Known, Limits], Translated],
) -> dict[str, Any]:
    translated = await run_sync(lambda: translate(models.known(), studio.limits))
    job = await _run(request, studio, user, translated.request, translated.inputs)
    files = await run_sync(studio.contents, user, job)
    return await run_sync(answers.generated, body, translated, job, files)


async def _enlarge(
    request: Request, studio: Studio, user: User, body: Extras, image: str, options: UserOptions
) -> tuple[str, tuple[str, ...]]:
    """An enlarged picture in base64, and what the client should know of it."""
    content = await run_sync(_sent_image, image)
    wanted = await run_sync(upscaling, body, content, options, studio.limits)
    if wanted.request is None:
        return to_base64(content), wanted.notes
    job = await _run(request, studio, user, wanted.request, wanted.inputs)
    files = await run_sync(studio.contents, user, job)
    result = files[0][1] if files else content
    if wanted.crop and files:
        result = await run_sync(cropped, result, wanted.crop)
    return to_base64(result), (*wanted.notes, *job.notes)


def _sent_image(text: str) -> bytes:
    """The file that was sent as `image`.

    Raises:
        UnknownNameError: none was sent.
        UnprocessableError: it is not base64.
    """
    if not text.strip():
        raise UnknownNameError("there is no image; send one as base64.")
    return from_base64(text, "the image")


async def _run(request: Request, studio: Studio, user: User, job: JobRequest, inputs: Mapping[str, bytes]) -> Job:
    """A job to its end; it is cancelled when the client goes away.

    Raises:
        JobFailedError: it failed.
        InputError, LimitError, FullDiskError: as `Studio.submit`.
    """
    ended = await run_to_end(request, studio, user, job, inputs)
    answers.require_success(ended)
    return ended
