"""The way of a picture with the embedded model: what comes out, and that it comes out the same again."""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import IMAGES
from diffusers.models.resnet import ResnetBlock2D
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFilter
from torch import nn

import seesr.upscaler
from seesr import InputError, OptionError, Options, Upscaler, WeightsError
from seesr.diffusion.tiled import predict_tiled
from seesr.images.colour import COLOR_FIXES, adain_fix, wavelet_fix
from seesr.images.sizes import SizeRequirements, plan_sizes
from seesr.kernels.inplace import InplaceResnet
from seesr.machine.device import CPU
from seesr.machine.memory import memory_bytes
from seesr.notes import Notes
from seesr.options import Limits
from seesr.tagging.prompt import build_prompt
from seesr.tiling import Tiles
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import resolve_weights
from seesr.weights.state_dict import assign_state_dict, read_state_dict


def difference(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference in grey levels."""
    return np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).mean()


def thumbnail(name: str) -> Image.Image:
    """A whole photograph, without what its file says."""
    image = Image.open(IMAGES / name).convert("RGB").resize((32, 32))
    image.info.clear()
    return image


def edges(image: Image.Image) -> float:
    """How strong they are, in grey levels."""
    return np.asarray(image.convert("L").filter(ImageFilter.FIND_EDGES), dtype=float)[2:-2, 2:-2].mean()


def test_result_is_four_times_larger_and_says_what_was_done(upscaler: Upscaler, small_photo: Image.Image) -> None:
    seen = []
    result = upscaler.upscale(small_photo, seed=1, prompt="a cat", progress=lambda *event: seen.append(event))
    assert result.image.size == (192, 160)
    assert result.seed == 1
    assert result.prompt.startswith("a cat, ")
    assert result.weights == "tiny (embedded)"
    assert list(result.seconds) == [
        "read",
        "clean",
        "resize",
        "tags",
        "prompt",
        "encode",
        "denoise",
        "vae_decode",
        "colour",
        "finish",
    ]
    assert ("denoise", 2, 2) in seen
    assert seen[-1] == ("done", 1, 1)


def test_result_is_the_same_scene_sharper_than_bicubic(upscaler: Upscaler) -> None:
    truth = Image.open(IMAGES / "astronaut.png").convert("RGB").crop((130, 20, 322, 212))
    low = truth.resize((48, 48), Image.Resampling.BICUBIC)
    bicubic = low.resize(truth.size, Image.Resampling.BICUBIC)
    result = upscaler.upscale(low, seed=0).image
    assert difference(result, bicubic) < 12
    assert difference(result.resize(low.size, Image.Resampling.BOX), low) < 6, "brightness and colour stay"
    assert edges(result) > 1.15 * edges(bicubic)


def test_same_seed_same_picture_another_seed_another(upscaler: Upscaler, small_photo: Image.Image) -> None:
    first, again, other = (upscaler.upscale(small_photo, seed=seed, scale=2).image for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_a_seed_is_drawn_and_reported(upscaler: Upscaler, small_photo: Image.Image) -> None:
    drawn = upscaler.upscale(small_photo, scale=2, steps=1)
    again = upscaler.upscale(small_photo, scale=2, steps=1, seed=drawn.seed)
    assert drawn.image.tobytes() == again.image.tobytes()


def test_path_bytes_image_and_array_give_the_same(upscaler: Upscaler, tmp_path: Path, small_photo: Image.Image) -> None:
    path = tmp_path / "photo.png"
    small_photo.save(path)
    sources = (path, str(path), path.read_bytes(), small_photo, np.asarray(small_photo))
    results = {upscaler.upscale(source, seed=0, scale=1, steps=1).image.tobytes() for source in sources}
    assert len(results) == 1


def test_threads_share_one_upscaler_and_take_turns(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [thumbnail(name) for name in ("coffee.png", "rocket.jpg", "chelsea.png")]
    alone = [upscaler.upscale(photo, seed=3, scale=2, steps=1).image.tobytes() for photo in photos]
    at_work, most, found, run = list[Any](), list[int](), dict[int, bytes](), Upscaler._run

    def watched(self: Upscaler, jobs: Any, *arguments: Any) -> Any:
        at_work.append(jobs)
        most.append(len(at_work))
        try:
            time.sleep(0.02)
            return run(self, jobs, *arguments)
        finally:
            at_work.remove(jobs)

    def work(number: int) -> None:
        found[number] = upscaler.upscale(photos[number], seed=3, scale=2, steps=1).image.tobytes()

    monkeypatch.setattr(Upscaler, "_run", watched)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert [found[number] for number in range(3)] == alone


@pytest.mark.parametrize("tries", [1, 2])
def test_the_denoiser_is_told_of_each_picture_what_is_in_it(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    photos = [thumbnail(name) for name in ("coffee.png", "rocket.jpg")]
    denoiser, told = upscaler.networks.denoiser, list[tuple[torch.Tensor, torch.Tensor]]()
    forward, plan = denoiser.forward, seesr.engine.build_ladder
    monkeypatch.setattr(denoiser, "forward", lambda *given: told.append(given[3:5]) or forward(*given))
    monkeypatch.setattr(
        seesr.engine, "build_ladder", lambda *values: [replace(rung, tiles_per_pass=tries) for rung in plan(*values)]
    )
    options = Options(scale=2, steps=1, seed=0, prompt="fur", kds=tries > 1, kds_particles=tries)
    results = upscaler.upscale_many(photos, options, together=2)
    for result in results:
        assert result.prompt == build_prompt([tag.name for tag in result.tags], "fur")
    assert results[0].prompt != results[1].prompt
    ((embeds, tokens),) = told
    with torch.inference_mode():
        words = torch.cat([upscaler.engine.components["prompt_encoder"]([result.prompt]) for result in results])
    seen = torch.cat([upscaler.conditioner.tag(photo).image_tokens for photo in photos])
    assert torch.equal(embeds, words.repeat_interleave(tries, dim=0))
    assert torch.equal(tokens, seen.repeat_interleave(tries, dim=0))


def test_tiles_cover_a_picture_larger_than_a_tile(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = list[int]()

    def counted(predict: Any, noisy: torch.Tensor, timestep: int, pixels: torch.Tensor, tiles: Tiles) -> torch.Tensor:
        cut.append(len(tiles.corners))
        return predict_tiled(predict, noisy, timestep, pixels, tiles)

    monkeypatch.setattr("seesr.diffusion.denoise.predict_tiled", counted)
    photo = Image.open(IMAGES / "coffee.png").convert("RGB").crop((100, 60, 240, 110))
    tiled = upscaler.upscale(photo, seed=0, steps=1, tile=48, tile_overlap=16).image
    whole = upscaler.upscale(photo, seed=0, steps=1, tile=0).image
    assert cut == [8, 1]
    assert tiled.size == (560, 200)
    assert difference(tiled, whole) < 0.5


def test_options_change_the_picture(upscaler: Upscaler, small_photo: Image.Image) -> None:
    variants = [{}, {"steps": 1}, {"color_fix": "adain"}, {"color_fix": "none"}, {"sharpen": 1}, {"conditioning_scale": 0.5}]
    results = {upscaler.upscale(small_photo, seed=0, scale=2, **values).image.tobytes() for values in variants}
    assert len(results) == len(variants)


def test_sharpening_makes_edges_stronger(upscaler: Upscaler, small_photo: Image.Image) -> None:
    plain, sharp = (upscaler.upscale(small_photo, seed=0, scale=2, steps=1, sharpen=strength).image for strength in (0, 1))
    assert edges(sharp) > 1.2 * edges(plain)


def test_colour_fixes_are_what_they_are_called() -> None:
    assert (COLOR_FIXES["wavelet"], COLOR_FIXES["adain"]) == (wavelet_fix, adain_fix)
    target = torch.rand(1, 3, 8, 8)
    assert COLOR_FIXES["none"](target, 1 - target) is target


def test_no_tags_leaves_only_words(upscaler: Upscaler, small_photo: Image.Image) -> None:
    result = upscaler.upscale(small_photo, seed=0, scale=1, steps=1, tags=False, prompt="fur")
    assert result.prompt == "fur, clean, high-resolution, 8k"


def test_bfloat16_gives_nearly_the_same_picture(upscaler: Upscaler, small_photo: Image.Image) -> None:
    coarse = Upscaler.load(device="cpu", dtype="bfloat16").upscale(small_photo, seed=0, scale=2, steps=1)
    exact = upscaler.upscale(small_photo, seed=0, scale=2, steps=1)
    assert difference(coarse.image, exact.image) < 4


def test_a_prompt_that_is_too_long_is_said(upscaler: Upscaler, small_photo: Image.Image) -> None:
    for _ in range(2):  # the second time it is remembered
        result = upscaler.upscale(small_photo, seed=0, scale=1, steps=1, tags=False, prompt="fur and grass, " * 60)
        assert result.notes == ["the first 77 tokens of the prompt are read, the rest is cut off"]
    assert not upscaler.upscale(small_photo, seed=0, scale=1, steps=1, tags=False, prompt="fur").notes


def test_of_pictures_in_one_pass_each_has_its_own_notes(
    upscaler: Upscaler, small_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [small_photo, small_photo.transpose(Image.Transpose.ROTATE_180)]
    wordy, plain = map(upscaler.conditioner.tag, images)
    wordy = replace(wordy, notes=Notes(["tags were seen in float32"]))
    looks = iter([wordy, plain])
    monkeypatch.setattr(upscaler.conditioner, "tag", lambda image: next(looks))
    monkeypatch.setattr(upscaler.conditioner, "prompt", lambda seen, _: "fur and grass, " * (60 if seen is wordy else 1))
    of_wordy, of_plain = upscaler.upscale_many(images, together=2, scale=2, steps=1, seed=0)
    assert of_wordy.notes == [*wordy.notes, "the first 77 tokens of the prompt are read, the rest is cut off"]
    assert of_plain.notes == []


def test_what_was_seen_in_another_precision_is_seen_anew(
    upscaler: Upscaler, small_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = upscaler.conditioner.tag(small_photo)
    with monkeypatch.context() as patch:
        patch.setattr("seesr.conditioning.dtype_of", lambda network: torch.bfloat16)
        assert upscaler.conditioner.tag(small_photo) is not first
    assert upscaler.conditioner.tag(small_photo) is first


def test_alpha_and_profile_come_back(upscaler: Upscaler, small_photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo, alpha = small_photo.copy(), small_photo.getchannel("G")
    photo.putalpha(alpha)
    photo.info["icc_profile"] = profile
    image = upscaler.upscale(photo, seed=0, scale=2, steps=1).image
    assert image.mode == "RGBA"
    assert difference(image.getchannel("A"), alpha.resize(image.size, Image.Resampling.BICUBIC)) < 1
    assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "I;16", "RGBA"])
def test_modes(upscaler: Upscaler, small_photo: Image.Image, mode: str) -> None:
    if mode == "I;16":
        photo = Image.fromarray(np.asarray(small_photo.convert("L")).astype(np.uint16) * 257)
    else:
        photo = small_photo.convert(mode)
    buffer = io.BytesIO()
    photo.save(buffer, "TIFF")
    result = upscaler.upscale(buffer.getvalue(), seed=0, scale=1, steps=1)
    assert result.image.size == small_photo.size
    # 1-bit dithering and palettes change pixels, not the picture.
    blurred = [image.convert("L").filter(ImageFilter.GaussianBlur(6)) for image in (result.image, small_photo)]
    assert difference(*blurred) < 25


def test_turned_by_exif(upscaler: Upscaler, small_photo: Image.Image) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    small_photo.save(buffer, "JPEG", exif=exif)
    width, height = small_photo.size
    assert upscaler.upscale(buffer.getvalue(), seed=0, scale=1, steps=1).image.size == (height, width)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"hello", "not a picture"), (b"\x89PNG\r\n\x1a\n" + b"0" * 40, "not a picture|damaged")],
)
def test_bad_bytes_are_refused_in_one_sentence(upscaler: Upscaler, content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        upscaler.upscale(content)


def test_a_cut_file_is_refused(upscaler: Upscaler) -> None:
    content = (IMAGES / "chelsea.png").read_bytes()
    with pytest.raises(InputError, match="cut short"):
        upscaler.upscale(content[: len(content) // 2])


def test_a_bomb_is_refused_before_it_is_decoded(upscaler: Upscaler) -> None:
    for side, words in (
        (12000, r"12000x12000, 144,000,000 pixels; at most 64,000,000"),
        (20000, "20000x20000, 400,000,000 pixels; at most 64,000,000"),
    ):
        buffer = io.BytesIO()
        Image.new("1", (side, side)).save(buffer, "PNG")
        with pytest.raises(InputError, match=words):
            upscaler.upscale(buffer.getvalue())


def test_a_result_beyond_the_limit_names_the_scale_that_fits(upscaler: Upscaler) -> None:
    with pytest.raises(OptionError, match=r"16000x1600; at most 8192 .* a scale of 4.09 or less"):
        upscaler.upscale(Image.new("RGB", (2000, 200)), scale=8)
    with pytest.raises(OptionError, match=r"at most 8192 .* ask for a longer side of 8192 or less"):
        upscaler.upscale(Image.new("RGB", (20, 20)), max_side=10000)
    with pytest.raises(OptionError, match=r"at most 8192 .* make it smaller first"):
        upscaler.upscale(Image.new("RGB", (20000, 1)))
    with pytest.raises(OptionError, match="8192x1 result is too narrow"):
        upscaler.upscale(Image.new("RGB", (8192, 1)), scale=1)


def test_one_pixel(upscaler: Upscaler) -> None:
    image = upscaler.upscale(Image.new("RGB", (1, 1), "teal"), seed=0, steps=1).image
    assert image.size == (4, 4)
    assert difference(image, Image.new("RGB", (4, 4), "teal")) < 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scale": 0}, "scale is 0: .*greater than or equal to 1"),
        ({"scale": 99}, "scale is 99: .*less than or equal to 8"),
        ({"steps": 0}, "steps is 0"),
        ({"preset": "best"}, "unknown preset 'best'; valid presets: speed, quality"),
        ({"guidance": 3}, "unknown option 'guidance'; valid options: scale, max_side"),
        ({"color_fix": "blue"}, "color_fix is 'blue'"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(values: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Options.make(**values)
    if "preset" not in values:
        with pytest.raises(OptionError, match=words):
            Options(**values)


def test_options_come_at_once_or_by_name(upscaler: Upscaler, small_photo: Image.Image) -> None:
    with pytest.raises(OptionError, match="give options, or scale, seed by name, not both"):
        upscaler.upscale(small_photo, Options(), scale=2, seed=1)


def test_a_preset_sets_what_is_not_given() -> None:
    assert Options.make().steps is None
    assert Options.make("speed").steps == 1
    assert Options.make("quality").steps == 4
    assert Options.make("quality", steps=3).steps == 3


def test_without_steps_those_of_the_weights_are_used_and_reported(
    upscaler: Upscaler, small_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upscaler.defaults.steps == 2
    monkeypatch.setattr(upscaler, "defaults", replace(upscaler.defaults, steps=1))
    result, asked = (upscaler.upscale(small_photo, scale=1, seed=0, steps=steps) for steps in (None, 1))
    assert result.image.tobytes() == asked.image.tobytes()
    assert result.options.steps == result.record()["steps"] == result.settings()["steps"] == 1
    assert upscaler.upscale(small_photo, scale=1, seed=0, steps=2).record()["steps"] == 2


def test_a_record_has_the_former_names_of_stages_too(upscaler: Upscaler, small_photo: Image.Image) -> None:
    result = upscaler.upscale(small_photo, scale=1, seed=0, steps=1)
    assert not {"decode", "pixels"} & result.seconds.keys()
    seconds = result.record()["seconds"]
    assert (seconds["decode"], seconds["pixels"]) == (seconds["read"], seconds["vae_decode"])
    json.dumps(result.record())


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    scale=st.floats(1, 8),
    multiple=st.sampled_from([4, 8]),
    margin=st.sampled_from([0, 8, 16]),
)
@example(width=44, height=1, scale=1.49, multiple=8, margin=0)
def test_sizes_fit_each_other(width: int, height: int, scale: float, multiple: int, margin: int) -> None:
    output = tuple(max(1, round(side * scale)) for side in (width, height))
    longest = round(max(output) * max(1, 128 / min(output)))
    try:
        sizes = plan_sizes((width, height), scale, None, SizeRequirements(128, multiple, margin), Limits())
    except OptionError:
        assert longest > 8192
        return
    assert sizes.output == output
    assert min(sizes.working) >= 128
    assert max(sizes.working) == longest <= 8192
    assert sizes.margin == margin
    assert all(0 <= padded - side - 2 * margin < multiple for padded, side in zip(sizes.padded, sizes.working, strict=True))
    assert all(side % multiple == 0 for side in sizes.padded)


def test_what_the_embedded_weights_want_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = json.loads((beside_package("tiny") / "seesr.json").read_text())
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    upscaler = Upscaler.load("tiny", "cpu")
    assert upscaler.defaults.margin == wanted["margin"] == 2
    assert str(upscaler.engine.dtype) == f"torch.{wanted['dtype']}" == "torch.float32"
    assert upscaler.engine.components["vae"].dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "memory"),
    [
        ({}, memory_bytes(CPU)[1]),
        ({"memory_limit": 2**20}, 2**20),
        ({"memory_limit": 2**60}, memory_bytes(CPU)[1]),
        ({"sequential": True, "memory_limit": 2**60}, 0),
    ],
    ids=["all there is", "a limit", "a limit beyond it", "sequential"],
)
def test_the_precision_is_chosen_by_the_memory_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], memory: float
) -> None:
    asked = list[tuple]()
    monkeypatch.setattr("seesr.engine.choose_dtype", lambda *values: asked.append(values) or torch.float32)
    Upscaler.load("tiny", "cpu", **given)
    assert asked == [("auto", CPU, "float32", memory)]


def test_the_vae_is_lean_and_convolutions_lie_channels_last(upscaler: Upscaler) -> None:
    vae, denoiser = upscaler.engine.components["vae"], upscaler.networks.denoiser
    kinds = {type(module) for module in vae.modules()}
    assert InplaceResnet in kinds
    assert ResnetBlock2D not in kinds
    for network in (vae, denoiser):
        weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
        square = [weight for weight in weights if weight.shape[2:] == (3, 3)]
        assert square
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in square)


@pytest.mark.parametrize("margin", [0, 2])
def test_networks_see_the_picture_with_the_margin_its_weights_want(
    upscaler: Upscaler, small_photo: Image.Image, monkeypatch: pytest.MonkeyPatch, margin: int
) -> None:
    requirements = replace(upscaler.networks.size_requirements, padding=4 * margin)
    monkeypatch.setattr(upscaler.networks, "size_requirements", requirements)
    seen: list[torch.Size] = []
    controlnet = upscaler.networks.denoiser.controlnet
    hook = controlnet.register_forward_pre_hook(
        lambda _, args, named: seen.append(named["controlnet_cond"].shape), with_kwargs=True
    )
    image = upscaler.upscale(small_photo, steps=1, seed=0).image
    hook.remove()
    assert image.size == (192, 160)
    assert seen == [(1, 3, 160 + 2 * 4 * margin, 192 + 2 * 4 * margin)]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(4, 60), height=st.integers(4, 60), scale=st.floats(1, 3))
def test_any_small_size(upscaler: Upscaler, width: int, height: int, scale: float) -> None:
    photo = Image.open(IMAGES / "rocket.jpg").convert("RGB").crop((300, 100, 300 + width, 100 + height))
    image = upscaler.upscale(photo, seed=0, scale=scale, steps=1).image
    assert image.size == (round(width * scale), round(height * scale))


def test_limits_are_set_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEESR_OUTPUT_SIDE", "1000")
    assert Limits.from_environment() == Limits(output_side=1000)
    monkeypatch.setenv("SEESR_OUTPUT_SIDE", "-3")
    with pytest.raises(OptionError, match="SEESR_OUTPUT_SIDE is '-3'"):
        Limits.from_environment()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{tmp_path} is not a weights folder: sd-turbo, seesr, ram is missing"):
        resolve_weights(tmp_path)


def test_weights_that_do_not_fit_name_the_first_few_keys() -> None:
    model = torch.nn.Linear(2, 3)
    before = model.weight.clone()
    with pytest.raises(WeightsError, match=r"1 missing \(bias\); 1 unexpected \(extra\); 1 of another shape \(weight"):
        assign_state_dict(model, {"weight": torch.zeros(4, 2), "extra": torch.zeros(1)}, "file")
    assert torch.equal(model.weight, before)


def test_a_legacy_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return (print, ("this must not be printed",))

    torch.save({"model": Code()}, tmp_path / "DAPE.pth")
    with pytest.raises(WeightsError, match="holds more than tensors and was refused"):
        read_state_dict(tmp_path, "DAPE")


@pytest.mark.parametrize("name", ["DAPE.pth", "DAPE.safetensors"])
def test_a_truncated_weight_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(WeightsError, match=f"{name} "):
        read_state_dict(tmp_path, "DAPE")
