"""From A1111's requests to jobs, without a server: what each field does, as the table of the docs says."""

from __future__ import annotations

import base64
import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from scripts.make_options_table import sdapi_table, with_table
from seesr.errors import OptionError, SeeSRError
from seesr.generation.infotext import Infotext
from seesr.jobs import GenerationRequest
from seesr.options import Limits
from seesr.studio.api.model_lists import CheckpointEntry, Known
from seesr.studio.api.sdapi import fields
from seesr.studio.api.sdapi.errors import UnprocessableError
from seesr.studio.api.sdapi.noting import UNUSED
from seesr.studio.api.sdapi.pictures import fitted, from_base64, grid
from seesr.studio.api.sdapi.translate import Translated, image_to_image, text_to_image
from seesr.studio.api.sdapi.upscaling import upscaling
from seesr.studio.api.sdapi.user_options import UserOptions
from seesr.studio.errors import UnknownNameError

DOCS = Path(__file__).parents[2] / "docs"
LIMITS = Limits()
KNOWN = Known(
    (
        CheckpointEntry("pictograms", "pictograms", "857dae9263"),
        CheckpointEntry("people/dream", "dream.safetensors", "0123456789"),
    ),
    ("sharp",),
    {"ink": ("{prompt}, ink", "")},
    ("people/edges",),
)


def png(size: tuple[int, int] = (64, 48), colour: Any = "red", mode: str = "RGB") -> str:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def made(endpoint: str = "txt2img", options: UserOptions | None = None, /, **body: Any) -> Translated:
    options = options or UserOptions()
    if endpoint == "txt2img":
        return text_to_image(fields.TextToImage.model_validate(body), options, KNOWN, LIMITS)
    body = {"init_images": [png()], **body}
    return image_to_image(fields.ImageToImage.model_validate(body), options, KNOWN, LIMITS)


def outcome(endpoint: str, **body: Any) -> tuple[Any, tuple[str, ...], bool]:
    """All that a request comes to, and its notes."""
    if endpoint == "extras":
        wanted = upscaling(fields.Extras.model_validate(body), from_base64(png(), "x"), UserOptions(), LIMITS)
        return (wanted.request, wanted.crop), wanted.notes, False
    result = made(endpoint, **body)
    return result.request, result.notes, result.is_grid_asked


MASK = {"mask": png(colour=255, mode="L")}
FIRST = {"enable_hr": True, "width": 64, "height": 64}
TO_SIZE = {"resize_mode": 1, "upscaler_1": "SeeSR"}
NOTED: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "styles": ("txt2img", ["None", "ink", "gone"], {}),
    "seed": ("txt2img", 2**32 + 7, {}),
    "subseed": ("txt2img", -3, {}),
    "subseed_strength": ("txt2img", 1.5, {}),
    "sampler_name": ("txt2img", "DPM++ 2S a", {}),
    "sampler_index": ("txt2img", "DPM adaptive", {}),
    "scheduler": ("txt2img", "align_your_steps", {}),
    "steps": ("txt2img", 400, {}),
    "cfg_scale": ("txt2img", 45, {}),
    "width": ("txt2img", 513, {}),
    "height": ("txt2img", 510, {}),
    "denoising_strength": ("img2img", 1.2, {}),
    "override_settings": ("txt2img", {"samples_format": "webp", "eta_noise_seed_delta": 3}, {}),
    "alwayson_scripts": ("txt2img", {"ADetailer": {"args": [True, {"ad_model": "face"}]}}, {}),
    "infotext": ("txt2img", "a cat\nSteps: 7, Sampler: Euler, Seed: 3, Model hash: ffffffffff", {}),
    "hr_scale": ("txt2img", 7, FIRST),
    "hr_upscaler": ("txt2img", "R-ESRGAN 4x+", FIRST),
    "hr_second_pass_steps": ("txt2img", 200, FIRST),
    "hr_resize_x": ("txt2img", 128, FIRST | {"hr_resize_y": 192}),
    "hr_resize_y": ("txt2img", 128, FIRST | {"hr_resize_x": 192}),
    "init_images": ("img2img", [png(), png()], {}),
    "resize_mode": ("img2img", 3, {}),
    "mask_blur": ("img2img", 99, MASK),
    "mask_blur_x": ("img2img", 99, MASK),
    "mask_blur_y": ("img2img", 99, MASK),
    "inpainting_fill": ("img2img", 9, MASK),
    "inpaint_full_res_padding": ("img2img", 999, MASK),
    "upscaling_resize": ("extras", 12, {"upscaler_1": "SeeSR"}),
    "upscaling_resize_w": ("extras", 1, TO_SIZE | {"upscaling_resize_h": 1}),
    "upscaling_resize_h": ("extras", 1, TO_SIZE | {"upscaling_resize_w": 1}),
    "upscaler_1": ("extras", "R-ESRGAN 4x+", {}),
}
"""Of each field that is honoured with a note: the request, a value that is noted, and what else must be sent."""
HONOURED: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "prompt": ("txt2img", "a cat", {}),
    "negative_prompt": ("txt2img", "a dog", {}),
    "batch_size": ("txt2img", 2, {}),
    "n_iter": ("txt2img", 3, {}),
    "save_images": ("txt2img", True, {}),
    "do_not_save_grid": ("txt2img", True, {"save_images": True}),
    "enable_hr": ("txt2img", True, {}),
    "firstphase_width": ("txt2img", 128, FIRST),
    "firstphase_height": ("txt2img", 128, FIRST),
    "mask": ("img2img", png(colour=255, mode="L"), {}),
    "inpaint_full_res": ("img2img", False, MASK),
    "inpainting_mask_invert": ("img2img", 1, MASK),
    "resize_mode": ("extras", 1, {"upscaler_1": "SeeSR"}),
    "upscaling_crop": ("extras", False, TO_SIZE),
}
ELSEWHERE = {
    *("send_images", "include_init_images", "script_name"),
    *("image", "imageList", "controlnet_module", "controlnet_input_images", "controlnet_images"),
}
"""Honoured fields of which the tests of the server and others here tell."""


def names(support: fields.Support) -> set[str]:
    requests = fields.REQUESTS.values()
    return {name for body in requests for name in body.model_fields if fields.support_of(body, name) == support}


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    page = (DOCS / "studio-a1111.md").read_text(encoding="utf-8")
    assert with_table(page, sdapi_table()) == page
    assert names("honoured with a note") == NOTED.keys()
    assert names("honoured") == HONOURED.keys() | ELSEWHERE
    assert UNUSED.keys() < names("accepted and ignored")


@pytest.mark.parametrize("field", NOTED)
def test_a_field_that_is_honoured_with_a_note_has_one(field: str) -> None:
    endpoint, value, others = NOTED[field]
    with_field, without = outcome(endpoint, **others, **{field: value}), outcome(endpoint, **others)
    assert len(with_field[1]) > len(without[1])
    assert all(len(note) < 160 for note in with_field[1])


@pytest.mark.parametrize("field", HONOURED)
def test_a_field_that_is_honoured_changes_the_job(field: str) -> None:
    endpoint, value, others = HONOURED[field]
    with_field, without = outcome(endpoint, **others, **{field: value}), outcome(endpoint, **others)
    assert (with_field[0], with_field[2]) != (without[0], without[2])


@pytest.mark.parametrize(
    "field", sorted(names("accepted and ignored") & {*fields.TextToImage.model_fields} | {"image_cfg_scale"})
)
def test_a_field_that_is_ignored_changes_nothing_but_the_notes(field: str) -> None:
    endpoint = "txt2img" if field in fields.TextToImage.model_fields else "img2img"
    default = fields.TextToImage().model_dump().get(field, 0.5)
    values: dict[type, Any] = {list: ["x"], str: "other", bool: not default}
    value = values.get(type(default), 7)
    before, after = outcome(endpoint), outcome(endpoint, **{field: value})
    assert (before[0], before[2]) == (after[0], after[2])
    assert bool(after[1]) == (field in UNUSED)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3)
)


@settings(max_examples=cases(60), deadline=None)
@given(body=st.dictionaries(st.sampled_from(sorted(fields.ImageToImage.model_fields)), ANYTHING, max_size=6))
def test_whatever_is_sent_becomes_a_job_or_a_sentence(body: dict[str, Any]) -> None:
    text = partial(text_to_image, options=UserOptions(), known=KNOWN, limits=LIMITS)
    image = partial(image_to_image, options=UserOptions(), known=KNOWN, limits=LIMITS)
    for make in (
        lambda: text(fields.TextToImage.model_validate(body)),
        lambda: image(fields.ImageToImage.model_validate(body)),
    ):
        try:
            make()
        except ValidationError:
            assert any(value is not None for value in body.values())
        except SeeSRError:
            continue


@given(field=st.sampled_from(sorted(fields.TextToImage.model_fields)))
def test_null_is_as_if_a_field_was_not_sent(field: str) -> None:
    assert made(**{field: None}) == made()


def test_numbers_are_read_laxly() -> None:
    # aiyabot sends 7.5 steps, null strengths and a style "None".
    result = made(steps="12", cfg_scale="7", hr_second_pass_steps=7.5, denoising_strength=None, styles=["None"], **FIRST)
    options = result.request.options
    assert (options.steps, options.guidance_scale, options.second_pass_steps, options.styles) == (12, 7, 7, ())
    assert made(seed=str(2**32 - 1)).request.options.seed == 2**32 - 1
    with pytest.raises(ValidationError):
        made(steps="many")


def test_what_is_not_sent_is_the_checkpoints_own() -> None:
    options = made(prompt="a cat").request.options
    assert (options.steps, options.guidance_scale, options.sampler, options.width, options.seed) == (None,) * 5


def test_samplers_and_schedules_are_known_by_all_their_names() -> None:
    for sent, sampler, schedule in (
        ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"sampler_name": "k_euler_a", "scheduler": "sgm_uniform"}, "Euler a", "SGM Uniform"),
        ({"sampler_index": "Euler", "scheduler": "automatic"}, "Euler", "Automatic"),
        ({"sampler_name": "Heun", "sampler_index": "Euler", "scheduler": "Karras"}, "Heun", "Karras"),
    ):
        options = made(**sent).request.options
        assert (options.sampler, options.schedule) == (sampler, schedule)
    with pytest.raises(UnknownNameError, match="unknown sampler 'nice'; valid samplers: Euler a"):
        made(sampler_name="nice")


def test_unknown_scripts_are_refused_and_none_is_none() -> None:
    assert made(script_name="None", script_args=[1]) == made()
    with pytest.raises(UnprocessableError, match="unknown script 'x/y/z plot'"):
        made(script_name="x/y/z plot")


def test_sizes_and_counts_outside_the_limits_are_refused() -> None:
    for body in ({"width": 4096}, {"height": 8}, {"batch_size": 17}, {"n_iter": 0}):
        with pytest.raises(OptionError, match=r"batch_|width|height"):
            made(**body)


def test_no_size_that_is_sent_fills_the_memory_of_the_server() -> None:
    with pytest.raises(OptionError, match="width is 1000000"):
        made("img2img", width=1_000_000, height=1_000_000)
    for number in (10**400, "9" * 5000, -(10**30)):
        with pytest.raises(ValidationError, match=r"smaller|finite"):
            made(width=number)
    sent = {"upscaler_1": "Lanczos", "upscaling_resize_w": 2_000_000, "upscaling_resize_h": 100_000, "resize_mode": 1}
    wanted = upscaling(fields.Extras.model_validate(sent), from_base64(png((640, 1)), "x"), UserOptions(), LIMITS)
    assert wanted.request is not None
    assert wanted.crop is not None
    assert max(wanted.crop) <= (wanted.request.options.max_side or 0)


def test_the_second_pass_has_the_size_that_is_asked_for() -> None:
    for sent, size, factor in (
        ({"hr_scale": 1.5}, (256, 128), 1.5),
        ({"hr_resize_x": 512}, (256, 128), 2),
        ({"hr_resize_y": 192}, (256, 128), 1.5),
        ({"firstphase_width": 128, "firstphase_height": 64}, (128, 64), 2),
    ):
        options = made(enable_hr=True, width=256, height=128, **sent).request.options
        assert ((options.width, options.height), options.second_pass) == (size, factor)
    upscalers = {
        "Latent (nearest)": "latent",
        "Lanczos": "Lanczos",
        "None": "Lanczos",
        "SeeSR": "SeeSR",
        "ESRGAN_4x": "SeeSR",
    }
    for name, ours in upscalers.items():
        assert made(hr_upscaler=name, **FIRST).request.options.second_pass_upscaler == ours


def test_overrides_hold_for_their_job_and_count_more_than_the_users_own() -> None:
    own = UserOptions.of({"sd_model_checkpoint": "pictograms", "CLIP_stop_at_last_layers": 2, "samples_format": "jpg"})
    result = made("txt2img", own, override_settings={"sd_model_checkpoint": "dream", "sd_vae": "sharp.safetensors"})
    request = result.request
    assert (request.checkpoint, request.vae) == ("people/dream", "sharp")
    assert (request.options.clip_skip, request.saving.format) == (2, "jpg")
    assert made("txt2img", own).request.checkpoint == "pictograms"
    for name in (
        "dream.safetensors [0123456789]",
        "people/dream",
        "DREAM.safetensors",
        "0123456789abcdef",
        "dream [0123456789]",
    ):
        assert made(override_settings={"sd_model_checkpoint": name}).request.checkpoint == "people/dream"
    for override in ({"sd_model_checkpoint": "/etc/passwd"}, {"sd_vae": "../x"}):
        with pytest.raises(UnknownNameError, match="there are: "):
            made(override_settings=override)


def test_an_infotext_fills_what_was_not_sent() -> None:
    text = str(
        Infotext(
            "a cat", "dogs", {"Steps": "7", "Sampler": "Euler", "Seed": "3", "Size": "128x64", "Model hash": "0123456789ab"}
        )
    )
    request = made(infotext=text, steps=9, seed=None).request
    options = request.options
    assert (options.prompt, options.negative_prompt, options.steps, options.seed) == ("a cat", "dogs", 9, 3)
    assert (options.width, options.height, options.sampler, request.checkpoint) == (128, 64, "Euler", "people/dream")
    overridden = made(infotext=text, override_settings={"sd_model_checkpoint": "pictograms"}).request
    assert overridden.checkpoint == "pictograms"


def test_a_picture_gets_the_size_that_is_asked_for() -> None:
    for mode in range(4):
        result = made("img2img", width=128, height=64, resize_mode=mode)
        assert input_size(result, result.request.image) == (128, 64)
    plain = made("img2img")
    assert plain.inputs[plain.request.image or ""] == from_base64(png(), "x")  # as it was sent
    whole = made("img2img", width=128, height=64, inpaint_full_res=False, **MASK)
    assert input_size(whole, whole.request.mask) == input_size(whole, whole.request.image) == (128, 64)
    alone = made("img2img", width=128, height=64, mask=png((32, 24), 255, "L"))
    assert input_size(alone, alone.request.mask) == input_size(alone, alone.request.image) == (64, 48)
    assert (alone.request.options.width, alone.request.options.inpaint_area) == (128, "masked")


def input_size(result: Translated, name: str | None) -> tuple[int, int]:
    return Image.open(io.BytesIO(result.inputs[name or ""])).size


def test_filling_repeats_the_border_and_cropping_keeps_the_middle() -> None:
    picture = Image.new("RGB", (40, 20), "blue")
    picture.paste("red", (0, 0, 10, 20))
    filled = fitted(picture, (80, 80), "fill")
    corners = [filled.getpixel(place) for place in ((0, 0), (0, 79), (79, 0), (79, 79))]
    assert corners == [(255, 0, 0), (255, 0, 0), (0, 0, 255), (0, 0, 255)]
    assert fitted(picture, (20, 20), "crop").getpixel((10, 10)) == (0, 0, 255)


def test_pictures_come_as_base64_or_data_url_and_never_as_addresses() -> None:
    content = from_base64(png(), "x")
    for text in (f"data:image/png;base64,{png()}", f"{png()[:20]}\n{png()[20:]}", png().rstrip("=")):
        assert from_base64(text, "x") == content
    for text in ("http://127.0.0.1/x.png", "https://x", "", "%%%", "data:image/png;base64,"):
        with pytest.raises(UnprocessableError):
            from_base64(text, "the picture")
    with pytest.raises(UnknownNameError, match="init_images has no picture"):
        image_to_image(fields.ImageToImage(), UserOptions(), KNOWN, LIMITS)
    with pytest.raises(UnprocessableError, match="not a picture"):
        made("img2img", init_images=[base64.b64encode(b"no picture").decode()])


def test_units_of_controlnet_are_read_in_the_extensions_form() -> None:
    unit = {"model": "edges [abcd]", "module": "canny", "image": png(), "weight": 0.5, "guidance_end": 0.8}
    for name, sent in (("ControlNet", unit), ("controlnet", unit | {"image": {"image": png(), "mask": None}})):
        result = made(alwayson_scripts={name: {"args": [sent, {"enabled": False, "model": "gone"}, {"model": "None"}]}})
        (control,) = result.request.controls
        assert (control.name, control.preprocessor, control.weight, control.end) == ("people/edges", "canny", 0.5, 0.8)
        assert control.image in result.inputs
    unpictured = {"args": [unit | {"image": None}]}
    from_begin = made("img2img", alwayson_scripts={"ControlNet": unpictured}).request
    assert from_begin.controls[0].image == from_begin.image
    for wrong, error in (
        ({"model": "gone"}, UnknownNameError),
        ({"module": "openpose"}, UnprocessableError),
        ({"image": ""}, UnprocessableError),
    ):
        with pytest.raises(error):
            made(alwayson_scripts={"ControlNet": {"args": [unit | wrong]}})
    # webuiapi sends this with every request once it has seen a ControlNet.
    assert made(alwayson_scripts={"ControlNet": {"args": []}, "ADetailer": {"args": [False]}}) == made()


def test_extras_enlarge_by_the_upscaler_that_is_named() -> None:
    def job(**body: Any) -> Any:
        return upscaling(fields.Extras.model_validate(body), from_base64(png(), "x"), UserOptions(), LIMITS)

    assert job().request is None
    for name in ("SeeSR", "Lanczos", "Nearest"):
        assert job(upscaler_1=name).request.method == name
    to_size = job(upscaler_1="SeeSR", resize_mode=1, upscaling_resize_w=100, upscaling_resize_h=100)
    assert (to_size.request.options.max_side, to_size.crop) == (134, (100, 100))


def test_a_grid_is_as_near_to_a_square_as_can_be() -> None:
    picture = from_base64(png((8, 8)), "x")
    for count, size in ((2, (16, 8)), (3, (16, 16)), (4, (16, 16)), (5, (24, 16)), (7, (24, 24))):
        assert Image.open(io.BytesIO(grid([picture] * count) or b"")).size == size
    assert grid([from_base64(png((4000, 2600)), "x")] * 10) is None  # 108 megapixels, with all rows full


def test_a_request_is_the_same_whatever_unknown_fields_it_has() -> None:
    # SillyTavern forwards its own url and credentials.
    body = fields.TextToImage.model_validate({"prompt": "a cat", "url": "http://x", "auth": "secret"})
    assert "secret" not in repr(body)
    assert isinstance(made(prompt="a cat", auth="secret").request, GenerationRequest)
