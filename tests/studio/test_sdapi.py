"""A1111's API on a real server: webuiapi with every method it has, and requests as other clients send them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import webuiapi
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import save_file
from stand_in_worker import StandInWorker
from studio_server import PASSWORD, ServedStudio, serving

from seesr.jobs import GenerationRequest, TagsRequest, UpscaleRequest
from seesr.studio.records import ENDED, LOCAL, User

PREFIX = "/sdapi/v1"
RED = Image.new("RGB", (64, 48), "red")
MASK = Image.new("L", (64, 48), 255)
INFO_KEYS = {
    *("prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed", "all_subseeds"),
    *("subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size", "restore_faces"),
    *("face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash", "seed_resize_from_w"),
    *("seed_resize_from_h", "denoising_strength", "extra_generation_params", "index_of_first_image", "infotexts", "styles"),
    *("job_timestamp", "clip_skip", "is_using_inpainting_conditioning", "version"),
}
"""Of A1111's `info`."""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """Without users."""
    with serving(tmp_path_factory.mktemp("studio")) as served:
        yield served


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """With anna and ben."""
    with serving(tmp_path_factory.mktemp("studio"), "anna", "ben") as served:
        yield served


def port(served: ServedStudio) -> int:
    return int(served.address.rpartition(":")[2])


def http(served: ServedStudio, user: str | None = None) -> httpx.Client:
    auth = (user, PASSWORD) if user else None
    return httpx.Client(base_url=served.address + PREFIX, auth=auth, timeout=30)


def post(client: httpx.Client, path: str, body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def base64_of(image: Image.Image) -> str:
    return webuiapi.raw_b64_img(image)


@pytest.mark.parametrize("user", [None, "ben"])
def test_webuiapi_makes_pictures(local: ServedStudio, shared: ServedStudio, user: str | None) -> None:
    served = shared if user else local
    api = webuiapi.WebUIApi(port=port(served), username=user, password=PASSWORD)
    result = api.txt2img(prompt="a cat", n_iter=2, width=64, height=64)
    assert [image.size for image in result.images] == [(64, 64)] * 2
    assert result.info.keys() == INFO_KEYS
    assert (result.info["all_prompts"], result.info["width"]) == (["a cat"] * 2, 64)
    assert result.parameters["prompt"] == "a cat"
    for mask in (None, MASK):
        assert len(api.img2img([RED], mask_image=mask, prompt="a dog").images) == 1
    (job,) = served.studio.jobs(User(name=user or LOCAL), count=1)
    assert job.request.task == "inpainting"

    async def both() -> list[Any]:
        return await asyncio.gather(
            api.txt2img(prompt="a cat", use_async=True), api.img2img([RED], prompt="a dog", use_async=True)
        )

    assert [len(result.images) for result in asyncio.run(both())] == [1, 1]
    assert api.extra_single_image(RED, upscaler_1="SeeSR", upscaling_resize=2).image.size == (64, 64)
    batch = api.extra_batch_images([RED, RED], upscaler_1=webuiapi.Upscaler.Lanczos)
    assert len(batch.images) == 2
    (job,) = served.studio.jobs(User(name=user or LOCAL), count=1)
    assert isinstance(job.request, UpscaleRequest)
    assert job.request.method == "Lanczos"
    assert api.interrogate(RED).info == "cat"
    (job,) = served.studio.jobs(User(name=user or LOCAL), count=1)
    assert isinstance(job.request, TagsRequest)
    assert api.extra_single_image(RED).image.tobytes() == RED.tobytes()  # upscaler None
    cropped = api.extra_single_image(RED, resize_mode=1, upscaling_resize_w=20, upscaling_resize_h=20, upscaler_1="Nearest")
    assert cropped.image.size == (20, 20)


def test_webuiapi_reads_and_changes_all_there_is(local: ServedStudio) -> None:
    api = webuiapi.WebUIApi(port=port(local))
    lists = ("samplers", "schedulers", "upscalers", "latent_upscale_modes", "sd_models", "sd_vae", "loras")
    for name in (*lists, "hypernetworks", "face_restorers", "realesrgan_models", "prompt_styles"):
        assert isinstance(getattr(api, f"get_{name}")(), list)
    assert [upscaler["name"] for upscaler in api.get_upscalers()] == ["None", "Lanczos", "Nearest", "SeeSR"]
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert api.get_memory()["ram"].keys() == {"free", "used", "total"}
    assert (api.refresh_checkpoints(), api.interrupt(), api.skip()) == ({}, {}, None)
    assert api.get_cmd_flags() == {"api": True}
    (title,) = api.util_get_model_names()
    api.util_set_model("pictograms")
    assert api.util_get_current_model() == title
    assert "Euler a" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    api.util_wait_for_ready(check_interval=0.01)
    assert api.get_progress()["state"]["job"] == ""


def test_a_picture_says_how_it_was_made(local: ServedStudio) -> None:
    text = "a cat\nNegative prompt: dogs\nSteps: 4, Sampler: Euler a, Seed: 5, Size: 64x48"
    chunks, buffer = PngInfo(), io.BytesIO()
    chunks.add_text("parameters", text)
    chunks.add_text("Software", "a program")
    RED.save(buffer, "PNG", pnginfo=chunks)
    with http(local) as client:
        answer = post(client, "/png-info", {"image": base64.b64encode(buffer.getvalue()).decode()})
        assert (answer["info"], answer["items"]) == (text, {"Software": "a program"})
        parameters = answer["parameters"]
        assert (parameters["Prompt"], parameters["Size-1"], parameters["Clip skip"]) == ("a cat", "64", "1")
        assert post(client, "/png-info", {"image": base64_of(RED)})["info"] == ""  # Photoshop's plug-in fails on null


OPEN_WEBUI = {"prompt": "a cat", "batch_size": 1, "width": 512, "height": 512, "steps": 4, "negative_prompt": None}
SILLYTAVERN = {
    **{"url": "http://127.0.0.1:7860", "auth": "user:a secret", "prompt": "a cat", "negative_prompt": "", "steps": 4},
    **{"sampler_name": "Euler a", "scheduler": "Automatic", "cfg_scale": 7, "width": 64, "height": 64, "seed": None},
    **{"restore_faces": False, "enable_hr": True, "hr_upscaler": "Latent", "hr_scale": 2, "hr_additional_modules": []},
    **{"denoising_strength": 0.7, "hr_second_pass_steps": 0, "override_settings": {"CLIP_stop_at_last_layers": 1}},
    **{"override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True, "send_images": True},
    **{"do_not_save_grid": False, "do_not_save_samples": False, "alwayson_scripts": {"ADetailer": {"args": [True]}}},
}
AIYABOT = {
    **{"prompt": "a cat", "negative_prompt": "", "steps": 4, "width": 64, "height": 64, "cfg_scale": "7.0"},
    **{"sampler_index": "Euler a", "seed": 5, "n_iter": 1, "styles": ["None"], "denoising_strength": None, "tiling": False},
    **{"enable_hr": True, "hr_upscaler": "Latent", "hr_scale": 2, "hr_second_pass_steps": 7.5},
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_model_checkpoint": "pictograms", "face_restoration_model": ""},
}
PHOTOSHOP = {
    **{"prompt": "a cat", "init_images": [f"data:image/png;base64,{base64_of(RED)}"], "mask": base64_of(MASK)},
    **{"mask_blur": 8, "inpaint_full_res": False, "inpaint_full_res_padding": 32, "inpainting_fill": 1, "resize_mode": 0},
    **{"inpainting_mask_invert": False, "denoising_strength": 0.5, "width": 64, "height": 64, "sampler_index": "Euler a"},
    **{"image_cfg_scale": 1.5, "seed": -1, "batch_size": 1, "script_args": [], "script_name": ""},
}
LIBRECHAT = {"prompt": "a cat", "negative_prompt": "b", "sampler_index": "DPM++ 2M Karras", "cfg_scale": 4.5, "steps": 4}
DIFY = {"prompt": "a cat", "override_settings": {"sd_model_checkpoint": "pictograms"}, "seed": -1, "width": 64, "height": 64}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/txt2img", OPEN_WEBUI),
        ("/txt2img", SILLYTAVERN),
        ("/txt2img", AIYABOT),
        ("/img2img", PHOTOSHOP),
        ("/txt2img", LIBRECHAT),
        ("/txt2img", DIFY),
    ],
    ids=["Open WebUI", "SillyTavern", "aiyabot", "Photoshop", "LibreChat", "Dify"],
)
def test_clients_get_what_they_read(shared: ServedStudio, path: str, body: dict[str, Any]) -> None:
    with http(shared, "ben") as client:
        response = client.post(path, json=body)
        assert response.status_code == 200, response.text
        assert "a secret" not in response.text
        answer = response.json()
        info = json.loads(answer["info"])
        assert Image.open(io.BytesIO(base64.b64decode(answer["images"][0], validate=True))).format == "PNG"
        assert {"seed", "width", "height"} <= info.keys()
        assert len(info["infotexts"]) == len(answer["images"]) == 1
        assert answer["parameters"].get("init_images") is None


def test_nothing_of_unknown_fields_is_kept_or_logged(shared: ServedStudio, caplog: pytest.LogCaptureFixture) -> None:
    with http(shared, "ben") as client, caplog.at_level("DEBUG"):
        post(client, "/txt2img", SILLYTAVERN)
        refused = client.post("/txt2img", json=SILLYTAVERN | {"steps": "a secret"})
    assert refused.status_code == 422
    assert [field["loc"] for field in refused.json()["detail"]] == [["body", "steps"]]
    (job,) = shared.studio.jobs(User(name="ben"), count=1)
    for text in (refused.text, caplog.text, job.model_dump_json()):
        assert "a secret" not in text


def test_a_grid_comes_first_where_it_is_asked_for(local: ServedStudio) -> None:
    with http(local) as client:
        for asked, first in (({"save_images": True}, 1), ({}, 0), ({"save_images": True, "do_not_save_grid": True}, 0)):
            answer = post(client, "/txt2img", {"prompt": "a cat", "n_iter": 2, **asked})
            info = json.loads(answer["info"])
            assert (info["index_of_first_image"], len(answer["images"]), len(info["infotexts"])) == (
                first,
                2 + first,
                2 + first,
            )
        assert post(client, "/txt2img", {"prompt": "a cat", "save_images": True})["images"][1:] == []
        assert post(client, "/txt2img", {"prompt": "a cat", "send_images": False})["images"] == []
        echoed = post(client, "/img2img", {"init_images": [base64_of(RED)], "include_init_images": True})
        assert echoed["parameters"]["init_images"] == [base64_of(RED)]


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/txt2img", {"sampler_name": "nice"}, 404, "unknown sampler 'nice'"),
        ("/txt2img", {"script_name": "nice"}, 422, "unknown script 'nice'"),
        ("/txt2img", {"override_settings": {"sd_model_checkpoint": "nice"}}, 404, "unknown checkpoint 'nice'"),
        ("/txt2img", {"width": 5000}, 400, "width is 5000"),
        ("/img2img", {}, 404, "init_images has no picture"),
        ("/img2img", {"init_images": ["bm8gcGljdHVyZQ=="]}, 422, "not a picture"),
        ("/img2img", {"init_images": ["http://127.0.0.1/x"]}, 422, "is an address"),
        ("/extra-single-image", {}, 404, "there is no image"),
        ("/interrogate", {"image": "%"}, 422, "neither base64"),
        ("/png-info", {"image": ""}, 422, "neither base64"),
        ("/options", {"samples_format": "exe"}, 400, "samples_format is 'exe'"),
        ("/options", {"sd_model_checkpoint": "nice"}, 404, "unknown checkpoint 'nice'"),
        ("/txt2img", {"prompt": "fail"}, 500, "as the prompt asked"),
    ],
)
def test_errors_have_the_form_of_a1111(
    local: ServedStudio, path: str, body: dict[str, Any], status: int, sentence: str
) -> None:
    with http(local) as client:
        response = client.post(path, json=body)
    assert response.status_code == status, response.text
    answer = response.json()
    assert answer.keys() == {"error", "detail", "body", "errors"}
    assert sentence in answer["detail"]
    with pytest.raises(RuntimeError, match="unknown sampler"):
        webuiapi.WebUIApi(port=port(local)).txt2img(sampler_name="nice")


def test_a_body_that_cannot_be_read_is_an_error_in_the_same_form(local: ServedStudio) -> None:
    with http(local) as client:
        response = client.post("/txt2img", content=b"\xff", headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text
    assert response.json().keys() == {"error", "detail", "body", "errors"}


def test_pictures_of_a_batch_go_by_both_names_that_clients_have_for_them(local: ServedStudio) -> None:
    with http(local) as client:
        file = {"name": "a", "data": base64_of(RED)}
        first = post(client, "/extra-batch-images", {"imageList": [file, file]})
        second = post(client, "/extra-batch-images", {"image_list": [{"name": "a", "image": base64_of(RED)}] * 2})
    assert first["images"] == second["images"] == [base64_of(RED)] * 2


def test_options_are_a_users_own_and_a_whole_answer_can_be_sent_back(shared: ServedStudio) -> None:
    with http(shared, "ben") as ben, http(shared, "anna") as anna:
        before = ben.get("/options").json()
        (model,) = ben.get("/sd-models").json()
        assert before["sd_model_checkpoint"] == model["title"]
        assert post(ben, "/options", before | {"samples_format": "webp", "send_seed": False, "unknown": {"x": 1}}) is None
        after = ben.get("/options").json()
        assert (after["samples_format"], after["send_seed"]) == ("webp", False)
        assert after.keys() == before.keys()
        assert anna.get("/options").json() == before
        post(ben, "/txt2img", {"prompt": "a cat"})
        post(ben, "/txt2img", {"prompt": "a cat", "override_settings": {"samples_format": "jpeg"}})
        jobs = shared.studio.jobs(User(name="ben"), count=2)
        assert [job.request.saving.format for job in jobs if isinstance(job.request, GenerationRequest)] == ["jpg", "webp"]
        post(ben, "/options", {"samples_format": "png"})


def wait_until(is_true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_progress_and_interrupt_are_of_ones_own_jobs(tmp_path: Path) -> None:
    worker = StandInWorker(0.2)
    with serving(tmp_path, "anna", "ben", worker=worker) as served, http(served, "ben") as ben, http(served, "anna") as anna:
        answers = list[Any]()
        body = {"prompt": "a cat", "n_iter": 20}
        thread = threading.Thread(target=lambda: answers.append(post(ben, "/txt2img", body)))
        thread.start()
        with http(served, "ben") as watcher:
            wait_until(lambda: watcher.get("/progress").json()["current_image"])
            wait_until(lambda: watcher.get("/progress").json()["state"]["job_no"] >= 1)
            progress = watcher.get("/progress", params={"skip_current_image": "true"}).json()
            assert progress["current_image"] is None
            assert 0 < progress["progress"] < 1
            assert (progress["state"]["job_count"], progress["state"]["sampling_steps"]) == (20, 4)
            assert anna.get("/progress").json()["state"]["job_count"] == 0
            for path in ("/interrupt", "/skip"):
                assert anna.post(path).status_code == 200
            assert watcher.get("/progress").json()["state"]["job_count"] == 20
            assert watcher.post("/interrupt", json={}).json() == {}
        thread.join(20)
        # What was finished comes, with the status 200 that clients take for success.
        assert 1 <= len(answers[0]["images"]) < 20


def test_the_job_of_a_client_that_goes_away_is_cancelled(tmp_path: Path) -> None:
    with serving(tmp_path, worker=StandInWorker(0.2)) as served:
        with http(served) as client, pytest.raises(httpx.ReadTimeout):
            client.post("/txt2img", json={"prompt": "a cat", "n_iter": 50}, timeout=0.5)
        wait_until(lambda: served.studio.jobs(User(name=LOCAL), ENDED))
        assert served.studio.jobs(User(name=LOCAL))[0].state == "cancelled"


def test_lists_name_what_is_in_the_folders_and_no_folder(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for folder in ("loras/people", "embeddings", "checkpoints", "vae", "controlnet/edges"):
        (models / folder).mkdir(parents=True)
    tensor = np.zeros((2, 1024), np.float32)
    for file in ("checkpoints/dream.safetensors", "vae/sharp.safetensors"):
        save_file({"x": tensor}, models / file)
    save_file({"emb_params": tensor}, models / "embeddings/bad.safetensors")
    save_file({"x": tensor}, models / "loras/people/ink.safetensors", metadata={"ss_output_name": "inky"})
    (models / "loras/broken.safetensors").write_bytes(b"no model")
    (models / "controlnet/edges/config.json").write_text("{}")
    (tmp_path / "styles.csv").write_text('name,prompt,negative_prompt\nink,"{prompt}, ink",dull\n')
    with serving(tmp_path) as served, http(served) as client:
        paths = (
            "sd-models",
            "sd-vae",
            "loras",
            "embeddings",
            "prompt-styles",
            "scripts",
            "script-info",
            "options",
            "cmd-flags",
        )
        read = {path: client.get(f"/{path}") for path in paths}
        assert all(str(tmp_path) not in response.text for response in read.values())
        lists = {path: response.json() for path, response in read.items()}
        assert [model["model_name"] for model in lists["sd-models"]] == ["pictograms", "dream"]
        assert lists["sd-models"][1]["title"] == f"dream.safetensors [{lists['sd-models'][1]['hash']}]"
        assert lists["sd-vae"] == [{"model_name": "sharp", "filename": "sharp.safetensors"}]
        (lora,) = lists["loras"]
        assert (lora["name"], lora["alias"], lora["path"]) == ("people/ink", "inky", "people/ink.safetensors")
        assert lists["embeddings"]["loaded"]["bad"] | {"shape": 1024, "vectors": 2} == lists["embeddings"]["loaded"]["bad"]
        assert lists["prompt-styles"] == [{"name": "ink", "prompt": "{prompt}, ink", "negative_prompt": "dull"}]
        api = webuiapi.WebUIApi(port=port(served))
        assert api.has_controlnet
        assert (api.controlnet_version(), api.controlnet_model_list()) == (2, ["edges"])
        assert api.controlnet_module_list() == ["none", "canny", "depth"]
        assert api.controlnet_detect([RED], module="canny").image.size == RED.size
        unit = webuiapi.ControlNetUnit(image=RED, module="canny", model="edges", weight=0.5)
        # webuiapi keeps the units in the default value of `alwayson_scripts`, for all calls that come later.
        api.txt2img(prompt="a cat", controlnet_units=[unit], styles=["ink"], alwayson_scripts={})
        request = served.studio.jobs(User(name=LOCAL), count=1)[0].request
        assert isinstance(request, GenerationRequest)
        assert (request.controls[0].name, request.controls[0].weight, request.options.styles) == ("edges", 0.5, ("ink",))


def test_without_controlnets_their_routes_are_not_there(local: ServedStudio) -> None:
    for path in ("version", "model_list", "module_list"):
        assert httpx.get(f"{local.address}/controlnet/{path}").status_code == 404


def test_nobody_gets_in_and_another_user_sees_nothing(shared: ServedStudio) -> None:
    with http(shared) as nobody:
        for path in ("/options", "/sd-models", "/progress"):
            refused = nobody.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"][:6]) == (401, "Basic ")
    with pytest.raises(RuntimeError, match="401"):
        webuiapi.WebUIApi(port=port(shared), username="ben", password="wrong").txt2img(prompt="a cat")


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    with serving(tmp_path, sdapi=False) as served:
        for path in ("/sdapi/v1/options", "/sdapi/v1/txt2img", "/controlnet/version"):
            assert httpx.get(served.address + path).status_code == 404
