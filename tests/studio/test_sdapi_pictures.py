"""A1111's API with the embedded models: what webuiapi gets are real pictures, the same for the same seed, which say so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import webuiapi
from PIL import Image
from sd_parsers import ParserManager
from studio_server import serving

from seesr.images.metadata import read_infotext
from seesr.job_runner import WorkerSettings
from seesr.studio.worker.local_worker import LocalWorker


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webuiapi.WebUIApi]:
    data = tmp_path_factory.mktemp("studio")
    worker = LocalWorker(WorkerSettings(data=data, device="cpu"), "cpu")
    with serving(data, worker=worker) as served:
        yield webuiapi.WebUIApi(port=int(served.address.rpartition(":")[2]), steps=2)


@pytest.fixture(scope="module")
def cat(api: webuiapi.WebUIApi) -> webuiapi.WebUIApiResult:
    return api.txt2img(prompt="a cat", negative_prompt="dogs", seed=5, width=128, height=128, cfg_scale=3)


def test_the_same_seed_gives_the_same_bytes(api: webuiapi.WebUIApi, cat: webuiapi.WebUIApiResult) -> None:
    both = api.txt2img(prompt="a cat", negative_prompt="dogs", seed=4, width=128, height=128, cfg_scale=3, n_iter=2)
    assert both.info["all_seeds"] == [4, 5]
    assert both.images[1].tobytes() == cat.image.tobytes()
    again = api.txt2img(prompt="a cat", negative_prompt="dogs", seed=5, width=128, height=128, cfg_scale=3)
    assert again.json["images"] == cat.json["images"]


def test_a_picture_holds_its_infotext(api: webuiapi.WebUIApi, cat: webuiapi.WebUIApiResult) -> None:
    assert api.png_info(cat.image).info == cat.info["infotexts"][0] == cat.image.info["parameters"]
    assert api.png_info(cat.image).parameters["Seed"] == "5"
    filled = api.post_and_get_api_result(f"{api.baseurl}/txt2img", {"infotext": cat.info["infotexts"][0]}, False)
    assert filled.image.tobytes() == cat.image.tobytes()
    for name, format in {"jpg": "JPEG", "webp": "WEBP"}.items():
        saved = api.txt2img(prompt="a cat", seed=5, width=128, height=128, override_settings={"samples_format": name})
        assert saved.image.format == format
        assert (read_infotext(saved.image), saved.info["infotexts"][0][:6]) == (saved.info["infotexts"][0], "a cat\n")


def test_sd_parsers_reads_what_comes(cat: webuiapi.WebUIApiResult) -> None:
    found = ParserManager().parse(cat.image)
    assert found is not None
    (sampler,) = found.samplers
    assert (sampler.name, sampler.parameters["seed"], sampler.parameters["steps"]) == ("Euler a", "5", "2")
    assert [prompt.value for prompt in sampler.prompts] == ["a cat"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["dogs"]


def test_a_mask_keeps_what_is_black(api: webuiapi.WebUIApi, cat: webuiapi.WebUIApiResult) -> None:
    mask = Image.new("L", (128, 128))
    mask.paste(255, (40, 40, 80, 80))
    result = api.img2img([cat.image], mask_image=mask, prompt="a dog", width=128, height=128, seed=1, mask_blur=0).image
    before, after = np.asarray(cat.image), np.asarray(result)
    outside = np.asarray(mask) == 0
    assert np.array_equal(before[outside], after[outside])
    assert not np.array_equal(before[~outside], after[~outside])
    empty = api.img2img([cat.image], mask_image=Image.new("L", (128, 128)), prompt="a dog", width=128, height=128, seed=1)
    assert "the mask is empty" in empty.info["extra_generation_params"]["Notes"]


def test_sizes_are_those_that_are_asked_for(api: webuiapi.WebUIApi, cat: webuiapi.WebUIApiResult) -> None:
    second = api.txt2img(
        prompt="a cat", seed=5, width=64, height=128, enable_hr=True, hr_upscaler=webuiapi.HiResUpscaler.Lanczos
    )
    assert second.image.size == (128, 256)
    assert api.img2img([cat.image], prompt="a dog", width=96, height=128, resize_mode=1).image.size == (96, 128)
    assert api.extra_single_image(cat.image, upscaler_1="SeeSR", upscaling_resize=1.5).image.size == (192, 192)
    for name in ("Lanczos", "Nearest"):
        assert api.extra_single_image(cat.image, upscaler_1=name, upscaling_resize=2).image.size == (256, 256)
    assert isinstance(api.interrogate(cat.image).info, str)
