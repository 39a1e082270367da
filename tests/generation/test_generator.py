"""Pictures on a random checkpoint: equal to stock diffusers, the same again, and what is masked is all that changes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers import encoded, photograph, swapped_profile, watching
from PIL import Image
from safetensors.torch import save_file

from seesr import InputError, OptionError, OutOfMemoryError, WeightsError
from seesr.engine import Engine
from seesr.errors import CanceledError, ComputeError
from seesr.generation.checkpoints import resolve_checkpoint
from seesr.generation.generator import Generator
from seesr.generation.samplers import SAMPLERS, make_scheduler, parse_sampler
from seesr.images.icc import DISPLAY_P3, build_profile
from seesr.images.resize import to_image, to_tensor
from seesr.planning.ladder import build_ladder
from seesr.planning.plan import MemoryPlan

PHOTO = photograph("chelsea.png", (150, 80, 214, 144))
PROMPT, NEGATIVE = "a cat, sitting", "dogs"
DETERMINISTIC = [sampler.name for sampler in SAMPLERS if not sampler.is_random]


def mask() -> Image.Image:
    image = Image.new("L", PHOTO.size)
    image.paste(255, (16, 24, 44, 48))
    return image


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> Generator:
    """A generator whose convolutions are PyTorch's own, in its own memory format."""
    plain = Generator.load(checkpoint, device="cpu", dtype="float32")
    for network in plain.engine.components.networks.values():
        network.to(memory_format=torch.contiguous_format)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.__class__ = torch.nn.Conv2d
    return plain


def stock(plain: Generator, task: str, sampler: str, guidance: float, strength: float = 0.5) -> Image.Image:
    """The stock pipeline of a task, run by hand on the same networks, with the noise of seed 5."""
    names = {"text to image": "StableDiffusionPipeline", "image to image": "StableDiffusionImg2ImgPipeline"}
    components = plain.engine.components
    encoder, vae = components["prompt_encoder"], components["vae"]
    pipeline = getattr(diffusers, names.get(task, "StableDiffusionInpaintPipeline"))(
        vae=vae,
        text_encoder=encoder.text_encoder,
        tokenizer=encoder.tokenizer,
        unet=components["unet"],
        scheduler=make_scheduler(plain.checkpoint.scheduler_config, parse_sampler(sampler)[0], "Automatic", 5),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    arguments: dict[str, Any] = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 4}
    arguments |= {"guidance_scale": guidance, "generator": torch.Generator().manual_seed(5), "output_type": "latent"}
    with torch.inference_mode():
        if task != "text to image":
            latents = vae.encode(to_tensor(PHOTO) * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
            arguments |= {"image": latents, "strength": strength}
        if task == "inpainting":
            arguments |= {"mask_image": mask(), "masked_image_latents": latents, "height": 64, "width": 64}
        made = pipeline(**arguments).images
        return to_image(vae.decode(made / vae.config.scaling_factor).sample / 2 + 0.5)


def ours(plain: Generator, task: str, sampler: str, guidance: float) -> Image.Image:
    values = {"negative_prompt": NEGATIVE, "steps": 4, "guidance_scale": guidance, "sampler": sampler, "seed": 5}
    if task == "text to image":
        return plain.text_to_image(PROMPT, **values)[0].image
    if task == "image to image":
        return plain.image_to_image(PHOTO, PROMPT, strength=0.5, **values)[0].image
    return plain.inpaint(PHOTO, mask(), PROMPT, strength=0.5, mask_blur=0, **values)[0].image


@pytest.mark.parametrize("sampler", DETERMINISTIC)
@pytest.mark.parametrize(
    ("task", "guidance"),
    [("text to image", 1.0), ("text to image", 6.0), ("image to image", 6.0), ("inpainting", 1.0)],
)
def test_pictures_are_those_of_the_stock_pipeline(plain: Generator, task: str, sampler: str, guidance: float) -> None:
    expected, made = (pixels(make(plain, task, sampler, guidance)) for make in (stock, ours))
    if task == "inpainting":  # of which the input's own pixels are pasted back
        expected = np.where(np.asarray(mask())[..., None] > 0, expected, pixels(PHOTO))
    assert np.array_equal(made, expected)


def test_pictures_of_a_batch_can_be_made_alone(generator: Generator) -> None:
    for sampler in ("Euler a", "DPM++ SDE"):
        together = generator.text_to_image(PROMPT, steps=3, seed=7, batch_size=3, sampler=sampler)
        assert [result.seed for result in together] == [7, 8, 9]
        third = generator.text_to_image(PROMPT, steps=3, seed=9, sampler=sampler)[0]
        assert np.abs(pixels(third.image) - pixels(together[2].image)).max() <= 1
        assert len({result.image.tobytes() for result in together}) == 3


def test_a_variation_begins_from_noise_between_two(generator: Generator) -> None:
    values = {"steps": 2, "seed": 7, "variation_seed": 8}
    images = [
        generator.text_to_image(PROMPT, variation_strength=strength, **values)[0].image for strength in (0.0, 0.4, 1.0)
    ]
    assert len({image.tobytes() for image in images}) == 3
    assert images[0].tobytes() == generator.text_to_image(PROMPT, steps=2, seed=7)[0].image.tobytes()
    assert images[2].tobytes() == generator.text_to_image(PROMPT, steps=2, seed=8)[0].image.tobytes()


@pytest.mark.parametrize(
    "values", [{}, {"inpaint_fill": "fill"}, {"inpaint_fill": "latent noise"}, {"inpaint_area": "masked"}]
)
def test_only_what_is_masked_changes(generator: Generator, values: dict[str, Any]) -> None:
    made = generator.inpaint(PHOTO, mask(), PROMPT, steps=2, seed=1, strength=1.0, mask_blur=2, **values)[0]
    changed = (pixels(made.image) != pixels(PHOTO)).any(axis=2)
    inside = np.zeros_like(changed)
    inside[24 - 8 : 48 + 8, 16 - 8 : 44 + 8] = True
    assert changed.sum() > 300
    assert not changed[~inside].any()
    assert made.task == "inpainting"


def test_a_mask_may_be_inverted_or_empty_or_of_another_size(generator: Generator) -> None:
    made = generator.inpaint(PHOTO, mask(), PROMPT, steps=2, seed=1, mask_blur=0, mask_invert=True)[0]
    assert np.array_equal(pixels(made.image)[24:48, 16:44], pixels(PHOTO)[24:48, 16:44])
    empty = generator.inpaint(PHOTO, Image.new("L", PHOTO.size), PROMPT, steps=2, seed=1)[0]
    assert empty.notes == ["the mask is empty: the whole picture was changed"]
    with pytest.raises(InputError, match="the mask is 8x8, the picture 64x64; give a mask of its size"):
        generator.inpaint(PHOTO, Image.new("L", (8, 8)), PROMPT)


def test_strength_nought_returns_the_input_and_a_little_is_one_step(generator: Generator) -> None:
    odd = photograph("chelsea.png", (150, 80, 213, 131))
    assert generator.image_to_image(odd, PROMPT, strength=0, seed=1)[0].image.tobytes() == odd.tobytes()
    for area in ("whole", "masked"):
        made = generator.inpaint(PHOTO, mask(), PROMPT, strength=0, seed=1, inpaint_area=area, inpaint_fill="fill")
        assert made[0].image.tobytes() == PHOTO.tobytes()
    for steps in (2, 49):
        calls = list[tuple[str, int, int]]()
        values = {"strength": 0.01, "steps": steps, "seed": 1, "progress": lambda *event, calls=calls: calls.append(event)}
        generator.image_to_image(PHOTO, PROMPT, **values)
        assert [call for call in calls if call[0] == "denoise"] == [("denoise", 0, 1), ("denoise", 1, 1)]


def test_a_picture_keeps_its_own_size_and_its_proportions(generator: Generator) -> None:
    odd = photograph("chelsea.png", (150, 80, 213, 131))
    sizes = [
        generator.image_to_image(odd, PROMPT, steps=1, seed=1, **values)[0].image.size
        for values in ({}, {"width": 96}, {"width": 72, "height": 64})
    ]
    assert sizes == [(63, 51), (96, 78), (72, 64)]


def test_progress_counts_the_calls_of_the_unet(generator: Generator) -> None:
    def counted(sampler: str) -> list[tuple[str, int, int]]:
        calls = list[tuple[str, int, int]]()
        generator.text_to_image(PROMPT, steps=4, sampler=sampler, seed=1, progress=lambda *event: calls.append(event))
        return [call for call in calls if call[0] == "denoise"]

    for sampler, count in (("DDIM", 4), ("Heun", 7), ("PNDM", 5)):
        assert counted(sampler) == [("denoise", done, count) for done in range(count + 1)]


def test_pixels_outside_the_mask_are_the_file_s_whatever_its_profile(generator: Generator) -> None:
    for profile in (swapped_profile(), build_profile(DISPLAY_P3, None, "Display P3")):
        content = encoded(PHOTO, "PNG", icc_profile=profile)
        made = generator.inpaint(content, mask(), PROMPT, steps=1, seed=1, mask_blur=0)[0].image
        assert made.info["icc_profile"] == profile
        changed = (pixels(made) != pixels(PHOTO)).any(axis=2)
        changed[24:48, 16:44] = False
        assert not changed.any()


def test_a_mask_of_a_dot_is_not_empty(generator: Generator) -> None:
    dot = Image.new("L", PHOTO.size)
    dot.paste(255, (30, 30, 34, 34))
    made = generator.inpaint(PHOTO, dot, PROMPT, steps=1, seed=1, mask_blur=60, second_pass=1.5)[0]
    assert made.task == "inpainting"
    assert [note.partition(" of")[0] for note in made.notes] == [
        "the blur",
        "no second pass is made where a part",
    ]


def test_what_would_be_too_large_is_refused_before_it_is_made(generator: Generator) -> None:
    stages = list[str]()
    with pytest.raises(OptionError, match="the pictures would be 10240x320; at most 8192 pixels a side are allowed"):
        with_engine(generator, stages=watching(stages.append)).text_to_image(PROMPT, width=2048, height=64, upscale=5)
    assert not stages


def test_a_narrow_picture_is_worked_on_at_a_size_that_exists(generator: Generator) -> None:
    narrow = Image.new("RGB", (10, 2500), (90, 120, 50))
    assert generator.image_to_image(narrow, PROMPT, steps=1, seed=1)[0].image.size == (10, 2500)


@pytest.mark.parametrize("sampler", ["LCM", "TCD"])
def test_distilled_samplers_take_many_steps(generator: Generator, sampler: str) -> None:
    assert generator.text_to_image(PROMPT, steps=60, seed=1, sampler=sampler)[0].steps == 60


def test_surroundings_are_made_and_the_picture_stays(generator: Generator) -> None:
    made = generator.image_to_image(PHOTO, PROMPT, steps=2, seed=1, outpaint=(16, 0, 0, 8), mask_blur=0)[0].image
    assert made.size == (80, 72)
    assert made.crop((16, 0, 80, 64)).tobytes() == PHOTO.tobytes()


@pytest.mark.parametrize("upscaler", ["latent", "Lanczos"])
def test_a_second_pass_works_at_the_larger_size(generator: Generator, upscaler: str) -> None:
    made = generator.text_to_image(PROMPT, steps=2, seed=1, second_pass=1.5, second_pass_upscaler=upscaler)[0]
    assert made.image.size == (96, 96)
    assert made.size == (64, 64)


def test_prompts_that_are_joined_scheduled_or_alternate(generator: Generator) -> None:
    def make(prompt: str, **values: Any) -> bytes:
        return generator.text_to_image(prompt, steps=4, seed=3, **values)[0].image.tobytes()

    cat, dog = make("a cat"), make("a dog")
    unmixed = generator.text_to_image("a cat AND a dog :0", steps=4, seed=3)[0].image
    assert np.abs(pixels(unmixed) - pixels(generator.text_to_image("a cat", steps=4, seed=3)[0].image)).max() <= 1
    assert len({cat, dog, make("a cat AND a dog"), make("[a cat:a dog:0.5]"), make("[a cat|a dog]")}) == 5
    assert make("[a cat:a dog:0]") == dog
    assert make("(a cat:1.0)") == cat != make("(a cat:1.5)")
    assert make("a cat", clip_skip=2) != cat
    assert make("a cat, " * 60) != make("a cat, " * 40), "nothing is cut off"


def test_embeddings_are_kept(generator: Generator) -> None:
    generator.passes.embedder.clear()
    hits = generator.passes.embedder.hits
    for _ in range(2):
        generator.text_to_image("a horse", steps=1, seed=1)
    assert generator.passes.embedder.hits - hits >= 2


def with_engine(generator: Generator, **settings: Any) -> Generator:
    """A generator on the same networks, whose engine is made with other settings."""
    engine = generator.engine
    kept = {name: getattr(engine, name) for name in ("components", "costs", "dtype", "limits", "memory_limit")}
    return Generator(Engine(**kept | settings), generator.checkpoint)


@pytest.mark.parametrize("stage", ["prompt", "encode", "denoise", "vae_decode", "finish"])
def test_memory_that_runs_out_takes_the_next_plan_with_the_same_seed(generator: Generator, stage: str) -> None:
    expected = generator.image_to_image(PHOTO, PROMPT, steps=2, seed=1)[0]
    left = [1]

    def enter(name: str) -> None:
        if name == stage and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("injected")

    def ladder(*arguments: Any) -> list[MemoryPlan]:
        (whole,) = build_ladder(*arguments)
        return [whole, replace(whole, name="tiled VAE", vae_tile=8)]

    smaller = with_engine(generator, stages=watching(enter), ladder=ladder)
    made = smaller.image_to_image(PHOTO, PROMPT, steps=2, seed=1)[0]
    assert (made.rung, [attempt.rung for attempt in made.attempts]) == ("tiled VAE", ["whole"])
    assert made.vae == "exact tiles"
    assert np.abs(pixels(made.image) - pixels(expected.image)).max() <= 1


def test_memory_that_never_suffices_is_one_sentence(generator: Generator) -> None:
    def enter(name: str) -> None:
        if name == "denoise":
            raise torch.OutOfMemoryError("injected")

    with pytest.raises(OutOfMemoryError, match="memory ran out with every plan"):
        with_engine(generator, stages=watching(enter)).text_to_image(PROMPT, steps=2, seed=1)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_cancel_takes_effect_within_a_call_and_the_next_job_is_unaffected(generator: Generator, call: int) -> None:
    expected = generator.text_to_image(PROMPT, steps=3, seed=1)[0].image.tobytes()
    done = list[int]()

    def progress(stage: str, number: int, total: int) -> None:
        if stage == "denoise":
            done.append(number)

    with pytest.raises(CanceledError):
        generator.text_to_image(PROMPT, steps=3, seed=1, progress=progress, cancelled=lambda: len(done) == call)
    assert done == list(range(call)), "the call was not finished"
    assert generator.text_to_image(PROMPT, steps=3, seed=1)[0].image.tobytes() == expected


def test_damaged_weights_make_no_black_picture(checkpoint: Path) -> None:
    damaged = Generator.load(checkpoint, device="cpu", dtype="float32")
    with torch.no_grad():
        damaged.engine.components["unet"].conv_in.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ComputeError, match="the weights are damaged"):
        damaged.text_to_image(PROMPT, steps=1, seed=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sampler": "Fast"}, "unknown sampler 'Fast'; valid samplers: Euler a, Euler"),
        ({"schedule": "Odd"}, "unknown schedule 'Odd'; valid schedules: Automatic, Karras"),
        ({"width": 100}, "width is 100: input should be a multiple of 8"),
        ({"height": 4096}, "height is 4096: input should be less than or equal to 2048"),
        ({"strength": 2}, "strength is 2: input should be less than or equal to 1"),
        ({"prompt": "x" * 20_001}, "prompt is .* at most 20000 characters"),
    ],
)
def test_bad_options_are_one_sentence(generator: Generator, values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        generator.text_to_image(values.pop("prompt", PROMPT), steps=1, **values)


def test_a_schedule_that_a_sampler_lacks_is_said(generator: Generator) -> None:
    made = generator.text_to_image(PROMPT, steps=2, seed=1, sampler="Euler a Karras")[0]
    assert (made.sampler, made.schedule) == ("Euler a", "Automatic")
    assert made.notes == ["the sampler Euler a has no schedule Karras; its own was used"]


@pytest.mark.parametrize(("prompt", "is_known"), [("a FOX, qwzx", True), ("qwzx, 3d", False), ("foxes", False), ("", True)])
def test_a_prompt_without_a_known_word_is_drawn_and_said(
    checkpoint: Path, tmp_path: Path, prompt: str, is_known: bool
) -> None:
    folder = tmp_path / "few words"
    shutil.copytree(checkpoint, folder)
    (folder / "words.txt").write_text("cat\nfox\n")
    made = Generator.load(folder, device="cpu").text_to_image(prompt, steps=1, seed=1)[0]
    sentence = "few words knows no word of the prompt: what it draws is left to chance"
    assert made.notes == ([] if is_known else [sentence])


def test_what_is_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is not a checkpoint in diffusers' folder layout: unet/config\.json is missing"):
        Generator.load(tmp_path)
    with pytest.raises(OptionError, match="never learnt to draw; use --checkpoint pictograms"):
        Generator.load("tiny")
    for name, content in (("a.safetensors", b"\x80\x02}q"), ("a.ckpt", b"PK\x03\x04"), ("a.pt", b""), ("a.bin", b"x")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="is not a whole safetensors file, and a file of another kind may run code"):
            Generator.load(tmp_path / name)
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    with pytest.raises(WeightsError, match="holds no UNet of SD 1 or SD 2, so it is no checkpoint that can be used"):
        Generator.load(tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    ("place", "content", "sentence"),
    [
        (
            "model_index.json",
            "StableDiffusionXLPipeline",
            "asks for StableDiffusionXLPipeline; only StableDiffusionPipeline, ",
        ),
        ("model_index.json", ["my_code", "Pipeline"], "asks for a class of its own; only StableDiffusionPipeline, "),
        (
            "unet/config.json",
            "UNet3DConditionModel",
            "asks for UNet3DConditionModel; only UNet2DConditionModel, of SD 1 and",
        ),
        ("unet/net.py", None, r"holds code \(unet/net\.py\), which is never run"),
        ("vae/diffusion_pytorch_model.bin", None, r"vae has no \.safetensors file, and no other is read"),
    ],
)
def test_a_folder_that_could_run_code_or_is_of_another_kind_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, content: object, sentence: str
) -> None:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    root = Path(shutil.copytree(checkpoint, tmp_path / "models" / "checkpoints" / "my model"))
    assert resolve_checkpoint("my model").root == root
    if content is not None:
        config = json.loads((root / place).read_text())
        (root / place).write_text(json.dumps(config | {"_class_name": content}))
    elif place.endswith(".bin"):
        (root / place).with_suffix(".safetensors").rename(root / place)
    else:
        (root / place).write_text("raise SystemExit")
    with pytest.raises(WeightsError, match=sentence):
        resolve_checkpoint("my model")
