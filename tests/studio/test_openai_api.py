"""OpenAI's API as its own Python client uses it, against a real server."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import OpenAI
from PIL import Image
from studio_server import PASSWORDS, ServedStudio, serving

from seesr.jobs import GenerationRequest, content_hash
from seesr.studio.records import User

BEN = User(name="ben")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    with serving(tmp_path_factory.mktemp("studio"), users=True, seconds=0.05) as served:
        yield served


@pytest.fixture(scope="module")
def ben(served: ServedStudio) -> OpenAI:
    return OpenAI(base_url=f"{served.address}/v1", api_key=served.key("ben"), max_retries=0)


def newest(served: ServedStudio) -> GenerationRequest:
    request = served.studio.jobs(BEN, count=1)[0].request
    assert isinstance(request, GenerationRequest)
    return request


def opened(content: str | None) -> Image.Image:
    assert content is not None
    return Image.open(io.BytesIO(base64.b64decode(content)))


def png(image: Image.Image, name: str = "picture.png") -> tuple[str, bytes, str]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return name, buffer.getvalue(), "image/png"


def test_pictures_of_a_prompt_with_all_that_can_be_asked_for(ben: OpenAI, served: ServedStudio) -> None:
    answer = ben.images.generate(
        model="dall-e-3",
        prompt="a cat",
        n=2,
        size="512x256",  # pyright: ignore[reportArgumentType]
        output_format="webp",
        output_compression=80,
        quality="high",
        style="vivid",
        user="me",
        extra_body={"seed": 7, "steps": 3, "negative_prompt": "a dog", "guidance_scale": 1.5, "unknown": {"auth": "x"}},
    )
    request = newest(served)
    options = request.options
    assert (options.prompt, options.negative_prompt, options.batch_size) == ("a cat", "a dog", 2)
    assert (options.seed, options.steps, options.guidance_scale) == (7, 3, 1.5)
    assert (options.width, options.height) == (512, 256)
    assert (request.saving.format, request.saving.quality, request.checkpoint) == ("webp", 80, None)
    assert answer.data is not None
    assert [opened(image.b64_json).size for image in answer.data] == [(64, 64)] * 2
    assert (answer.output_format, answer.size) == ("webp", "64x64")
    assert abs(answer.created - time.time()) < 300


def test_an_address_is_our_own_and_takes_the_same_key(ben: OpenAI, served: ServedStudio) -> None:
    answer = ben.images.generate(prompt="a cat", response_format="url", size="auto")
    assert answer.data is not None
    url = answer.data[0].url
    assert url is not None
    assert url.startswith(served.address)
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Bearer {served.key('anna')}"}).status_code == 200  # an admin
    picture = httpx.get(url, headers={"Authorization": f"Bearer {ben.api_key}"})
    assert Image.open(io.BytesIO(picture.content)).size == (64, 64)


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_an_edit_paints_what_the_mask_has_transparent(ben: OpenAI, served: ServedStudio, field: str) -> None:
    image, mask = Image.new("RGB", (64, 48), "red"), Image.new("RGBA", (64, 48), "white")
    mask.paste((0, 0, 0, 0), (0, 0, 20, 48))
    pictures = png(image)
    answer = ben.images.edit(
        image=pictures if field == "image" else [pictures], mask=png(mask), prompt="a hat", extra_body={"seed": 3}
    )
    assert answer.data is not None
    assert opened(answer.data[0].b64_json).size == (64, 64)
    request = newest(served)
    assert (request.task, request.options.prompt, request.options.seed) == ("inpainting", "a hat", 3)
    assert request.image == content_hash(pictures[1])
    assert request.options.mask_invert
    assert request.mask is not None
    painted = Image.open(io.BytesIO(served.studio.files.input(request.mask)))
    assert (painted.mode, painted.getpixel((5, 5)), painted.getpixel((40, 5))) == ("L", 0, 255)


def test_an_edit_without_a_mask_is_of_the_transparent_part_else_of_everything(ben: OpenAI, served: ServedStudio) -> None:
    ben.images.edit(image=png(Image.new("RGB", (64, 64), "red")), prompt="a hat", size="256x256")
    request = newest(served)
    assert (request.task, request.options.width) == ("image to image", 256)
    ben.images.edit(image=png(Image.new("RGBA", (64, 64), (255, 0, 0, 0))), prompt="a hat")
    request = newest(served)
    assert request.task == "inpainting"
    assert request.image is not None
    kept = Image.open(io.BytesIO(served.studio.files.input(request.image)))
    assert (kept.mode, kept.getpixel((5, 5))) == ("RGB", (255, 0, 0))


@pytest.mark.parametrize("kind", ["image_generation", "image_edit"])
def test_streams_have_previews_and_then_the_picture(ben: OpenAI, kind: str) -> None:
    if kind == "image_generation":
        stream = ben.images.generate(prompt="a cat", stream=True, partial_images=2, output_format="jpeg", size="256x256")  # pyright: ignore[reportArgumentType]
    else:
        stream = ben.images.edit(
            image=png(Image.new("RGB", (64, 64))), prompt="a cat", stream=True, partial_images=2, output_format="jpeg"
        )
    events = list(stream)
    assert [event.type for event in events] == [f"{kind}.partial_image"] * 2 + [f"{kind}.completed"]
    assert [getattr(event, "partial_image_index", None) for event in events] == [0, 1, None]
    assert [opened(event.b64_json).size for event in events] == [(8, 8), (8, 8), (64, 64)]
    assert opened(events[0].b64_json).format == "JPEG"
    assert events[-1].usage.total_tokens == 0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_stream_of_several_pictures_without_previews(ben: OpenAI) -> None:
    events = list(ben.images.generate(prompt="a cat", stream=True, n=3))
    assert [event.type for event in events] == ["image_generation.completed"] * 3


def test_models_are_the_checkpoints(ben: OpenAI, served: ServedStudio) -> None:
    names = [model.id for model in ben.models.list()]
    assert "pictograms" in names
    assert ben.models.retrieve("pictograms").owned_by == "seesr"
    ben.images.generate(prompt="a cat", model="pictograms")
    assert newest(served).checkpoint == "pictograms"


def test_errors_are_those_of_the_client(ben: OpenAI, served: ServedStudio) -> None:
    def refused(kind: type[openai.APIStatusError], **fields: object) -> openai.APIStatusError:
        with pytest.raises(kind) as raised:
            ben.images.generate(**{"prompt": "a cat", **fields})  # pyright: ignore[reportArgumentType, reportCallIssue]
        assert raised.value.type == "invalid_request_error"
        return raised.value

    for size in ("100x100", "64", "512x", "4096x4096", "0x0", "512x512x512"):
        assert refused(openai.BadRequestError, size=size).param == "size"
    for fields in ({"n": 0}, {"n": 11}, {"response_format": "gif"}, {"partial_images": 4}, {"background": "transparent"}):
        assert refused(openai.BadRequestError, **fields).param == next(iter(fields))
    assert refused(openai.BadRequestError, prompt="").param == "prompt"
    assert refused(openai.BadRequestError, extra_body={"steps": 1000}).param == "steps"
    unknown = refused(openai.NotFoundError, model="../../etc/passwd")
    assert (unknown.param, unknown.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        ben.models.retrieve("nothing")
    for key in ("sk-wrong", "x"):
        with pytest.raises(openai.AuthenticationError) as raised:
            ben.with_options(api_key=key).models.list()
        assert raised.value.type == "invalid_request_error"
    assert httpx.get(f"{served.address}/v1/models", auth=("ben", PASSWORDS["ben"])).status_code == 401
    small, large = png(Image.new("RGBA", (32, 32), (0, 0, 0, 0))), png(Image.new("RGB", (64, 64)))
    for mask in (small, large, ("mask.png", b"no picture", "image/png")):
        with pytest.raises(openai.BadRequestError):
            ben.images.edit(image=large, mask=mask, prompt="a hat")
    with pytest.raises(openai.BadRequestError) as raised:
        ben.images.edit(image=[large, large], prompt="a hat")
    assert raised.value.param == "image"


def test_a_job_that_fails_is_not_sent_again(ben: OpenAI, served: ServedStudio) -> None:
    before = len(served.studio.jobs(BEN))
    with pytest.raises(openai.InternalServerError, match="it failed, as the prompt asked"):
        ben.with_options(max_retries=2).images.generate(prompt="fail")
    assert len(served.studio.jobs(BEN)) == before + 1
    with pytest.raises(openai.APIError, match="it failed, as the prompt asked"):
        list(ben.images.generate(prompt="fail", stream=True))


@pytest.mark.parametrize("stream", [False, True])
def test_a_job_ends_with_its_client(ben: OpenAI, served: ServedStudio, stream: bool) -> None:
    body = {"prompt": "slow", "stream": stream}
    headers = {"Authorization": f"Bearer {ben.api_key}"}
    url = f"{served.address}/v1/images/generations"
    with httpx.Client(timeout=1.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post(url, json=body, headers=headers)
    end = time.monotonic() + 60
    while served.studio.jobs(BEN, count=1)[0].state in ("pending", "running"):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert served.studio.jobs(BEN, count=1)[0].state == "cancelled"


def test_nothing_of_what_was_sent_is_in_an_error(ben: OpenAI, served: ServedStudio) -> None:
    answer = httpx.post(
        f"{served.address}/v1/images/generations",
        json={"prompt": ["secret-1"], "auth": "secret-2"},
        headers={"Authorization": f"Bearer {ben.api_key}"},
    )
    assert answer.status_code == 400
    assert json.loads(answer.text)["error"].keys() == {"message", "type", "param", "code"}
    assert "secret" not in answer.text
