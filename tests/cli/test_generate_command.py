"""`seesr generate` and `seesr read`, run in this process as the entry point runs them, on the embedded checkpoint."""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controlnets import save_controlnet
from helpers import Outcome, Run, photograph
from PIL import Image

from seesr import OptionError
from seesr.generation.checkpoints import resolve_checkpoint
from seesr.generation.generator import Generator
from seesr.jobs import content_hash, parse_request

QUICK = ("--steps", 2, "--seed", 7)


@pytest.fixture(scope="module")
def embedded() -> Generator:
    return Generator.load(device="cpu")


@pytest.fixture
def generate(seesr: Run, embedded: Generator) -> Callable[..., Outcome]:
    """`seesr generate`, which loads the embedded checkpoint only once."""

    def load(checkpoint: str | None = None, *_: Any, **others: Any) -> Generator:
        resolve_checkpoint(checkpoint, others["vae"], others["prediction"])
        return Generator(embedded.engine, embedded.checkpoint, vae_tile=others["vae_tile"])

    return functools.partial(seesr, "generate", load=load)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    photograph("chelsea.png", (150, 80, 214, 144)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_picture_tells_how_it_was_made_and_is_made_again(generate: Run, seesr: Run, tmp_path: Path) -> None:
    target, again = tmp_path / "apple.png", tmp_path / "again.png"
    outcome = generate("(red:1.2) apple, 3d", "-o", target, *QUICK, "--sampler", "Euler a", "--json")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert (record["output"], record["seed"], record["sampler"], record["width"]) == (str(target), 7, "Euler a", 128)
    read = seesr("read", target)
    assert read.out.startswith("(red:1.2) apple, 3d\nSteps: 2, Sampler: Euler a, Schedule type: Automatic, CFG scale: 5")
    assert json.loads(seesr("read", target, "--json").out)["settings"]["steps"] == 2
    assert generate("--like", target, "-o", again).code == 0
    assert Image.open(again).tobytes() == Image.open(target).tobytes()
    assert generate("--like", target, "--seed", 8, "-o", tmp_path / "other.png").code == 0
    assert Image.open(tmp_path / "other.png").tobytes() != Image.open(target).tobytes()


def test_several_pictures_are_numbered_and_named_after_their_seed_in_a_folder(generate: Run, tmp_path: Path) -> None:
    outcome = generate("a {fox|owl}", "-o", tmp_path / "made", *QUICK, "--batch-count", 2, "--format", "webp", "--json")
    assert [json.loads(line)["seed"] for line in outcome.out.splitlines()] == [7, 8]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["7-1.webp", "7-2.webp"]
    again = generate("a fox", "-o", tmp_path / "made", *QUICK, "--batch-count", 2, "--format", "webp")
    assert (again.code, "7-1.webp exists (and 1 more); use --overwrite" in again.err) == (2, True)


def test_a_part_of_a_picture_is_painted_anew(generate: Run, photo: Path, tmp_path: Path) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    mask.save(tmp_path / "mask.png")
    target = tmp_path / "new.png"
    values = "--mask", tmp_path / "mask.png", "--mask-blur", 0, "--no-metadata"
    outcome = generate("a hat", "--image", photo, "-o", target, *QUICK, *values)
    assert outcome.code == 0, outcome.err
    changed = (np.asarray(Image.open(target)) != np.asarray(Image.open(photo))).any(axis=2)
    assert changed[16:48, 16:48].mean() > 0.5
    changed[16:48, 16:48] = False
    assert not changed.any()
    assert Image.open(target).info.keys() <= {"icc_profile"}
    wider = generate("a hat", "--image", photo, "-o", tmp_path / "wide.png", *QUICK, "--outpaint", 8, 0, 0, 0)
    assert wider.code == 0, wider.err
    assert Image.open(tmp_path / "wide.png").size == (72, 64)


def test_what_the_checkpoint_cannot_make_is_enlarged(generate: Run, tmp_path: Path) -> None:
    outcome = generate("a fox", "-o", tmp_path / "fox.png", *QUICK, "--width", 256, "--height", 192, "--upscale", 1.5)
    assert outcome.code == 0, outcome.err
    assert Image.open(tmp_path / "fox.png").size == (384, 288)
    assert "makes pictures up to 128 pixels a side: this was made at 128x96 and enlarged" in outcome.err


def test_a_second_pass_by_seesr(generate: Run, tmp_path: Path) -> None:
    values = "--second-pass", 1.5, "--second-pass-steps", 1
    outcome = generate("a fox", "-o", tmp_path / "fox.png", *QUICK, *values)
    assert outcome.code == 0, outcome.err
    assert Image.open(tmp_path / "fox.png").size == (192, 192)
    assert "Hires upscale: 1.5, Hires upscaler: SeeSR, Hires steps: 1" in Image.open(tmp_path / "fox.png").info["parameters"]


def test_styles_of_the_data_folder(generate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    (tmp_path / "styles.csv").write_text("name,prompt,negative_prompt\nflat,{prompt} drawn,shadow\n")
    assert generate("a fox", "-o", tmp_path / "fox.png", *QUICK, "--style", "flat").code == 0
    assert Image.open(tmp_path / "fox.png").info["parameters"].startswith("a fox drawn\nNegative prompt: shadow\n")


@pytest.mark.parametrize("flag", ["--lowvram", "--medvram", "--no-optimizations"])
def test_names_for_memory_give_the_same_picture(generate: Run, tmp_path: Path, flag: str) -> None:
    for name, flags in (("plain.png", ()), ("less.png", (flag,))):
        assert generate("a fox", "-o", tmp_path / name, *QUICK, *flags).code == 0
    plain, less = (np.asarray(Image.open(tmp_path / name), dtype=int) for name in ("plain.png", "less.png"))
    assert abs(plain - less).max() <= 1


def test_a_dry_run_makes_nothing(generate: Run, tmp_path: Path) -> None:
    outcome = generate("a fox", "-o", tmp_path / "fox.png", "--dry-run", "--json")
    assert json.loads(outcome.out).keys() == {"pictures", "width", "height", "plan", "memory", "seconds", "notes"}
    assert "1 picture of 128x128, memory plan whole" in generate("a fox", "-o", tmp_path / "fox.png", "--dry-run").out
    assert not [*tmp_path.glob("*.png")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sampler", "Fast"), "unknown sampler 'Fast'; valid samplers: Euler a, Euler,"),
        (("--width", 100), "width is 100: input should be a multiple of 8."),
        (("--strength", 2), "strength is 2.0: input should be less than or equal to 1."),
        (("--checkpoint", "."), ". is not a checkpoint in diffusers' folder layout: unet/config.json is missing."),
        (("--checkpoint", "tiny"), "never learnt to draw; use --checkpoint pictograms."),
        (("--vae", "none"), "unknown VAE 'none'; give a folder, a safetensors file or a name in models/vae."),
        (("--prediction", "x"), "unknown prediction 'x'; valid predictions: epsilon, v_prediction."),
        (("--image", "PHOTO", "--mask", "SMALL"), "the mask is 8x8, the picture 64x64; give a mask of its size."),
        (("--mask", "SMALL"), "--mask and --outpaint change a picture: give it with --image."),
        (("--image", "none.png"), "none.png does not exist."),
        (("--image", "PHOTO", "-o", "PHOTO", "--overwrite"), "photo.png is an input itself; choose another output."),
        (("--image", "PHOTO", "--outpaint", 0, 0, 0, 0), "outpaint is (0, 0, 0, 0); give four numbers from 0 to 1024"),
        (("--like", "PHOTO"), "holds no settings of SeeSR or of A1111."),
        (("--lora", "Old:0.8"), "unknown LoRA 'Old'; models/loras has: none."),
        (
            ("--lora", "Old:x"),
            "the LoRA 'Old:x' has 'x'; write NAME, NAME:0.8 or NAME:te=0.5:unet=0.8 with numbers from -10",
        ),
        (("--style", "Old"), "unknown style 'Old'; styles.csv has: none."),
        (("--lowvram", "--medvram"), "give one of --lowvram, --medvram and --no-optimizations."),
    ],
)
def test_bad_input_is_one_sentence(
    generate: Run, photo: Path, tmp_path: Path, arguments: tuple[object, ...], words: str
) -> None:
    small = tmp_path / "small.png"
    Image.new("L", (8, 8), 255).save(small)
    places = {"PHOTO": photo, "SMALL": small}
    outcome = generate("a fox", "-o", tmp_path / "fox.png", *(places.get(str(one), one) for one in arguments))
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if not line.startswith("checkpoint:")]
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "fox.png").exists()


def test_controlnets_steer(
    generate: Run, embedded: Generator, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    save_controlnet(embedded.engine.components["unet"], tmp_path / "models" / "controlnet" / "edges", 1)
    target, arguments = tmp_path / "fox.png", ("--control-image", photo, "--preprocessor", "canny")
    assert generate("a fox", "-o", tmp_path / "plain.png", *QUICK).code == 0
    several = ("--controlnet", "edges:0.5", "--controlnet", "edges:0.2:0.5:1")
    outcome = generate("a fox", "-o", target, *QUICK, *several, *arguments)
    assert outcome.code == 0, outcome.err
    with Image.open(target) as image, Image.open(tmp_path / "plain.png") as plain:
        assert image.tobytes() != plain.tobytes()
        assert ', ControlNet 1: "Module: canny, Model: edges [' in image.info["parameters"]
        assert [unit["weight"] for unit in json.loads(image.info["seesr"])["controls"]] == [0.5, 0.2]
    assert "was made with ControlNet; give it" in generate("--like", target, "-o", tmp_path / "again.png").err
    dry = generate("a fox", "-o", tmp_path / "dry.png", *QUICK, *several, *arguments, "--dry-run", "--json")
    assert json.loads(dry.out)["pictures"] == 1
    for wrong, words in (
        (arguments, "are for a ControlNet: give one with --controlnet"),
        (several, "--control-image is given 0 times and --controlnet 2; give one for each, or one for all"),
        (("--controlnet", "edges:3", *arguments), "the weight of the ControlNet edges is 3; give 0 to 2"),
        (("--controlnet", "other", *arguments), "unknown ControlNet 'other'; models/controlnet has: edges"),
    ):
        outcome = generate("a fox", "-o", tmp_path / "none.png", *QUICK, *wrong)
        assert outcome.code == 2
        assert words in " ".join(outcome.err.split())


def test_a_full_disk_leaves_nothing_half_written(generate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    outcome = generate("a fox", "-o", tmp_path / "fox.png", *QUICK)
    assert outcome.code == 2
    assert "fox.png cannot be written" in outcome.err
    assert not [*tmp_path.iterdir()]


def test_a_request_names_the_pictures_that_its_task_takes() -> None:
    options: dict[str, Any] = {"prompt": "a fox"}
    name = content_hash(b"picture")
    parse_request({"task": "image to image", "options": options, "image": name})
    for task, image in (("inpainting", name), ("text to image", name), ("image to image", None)):
        with pytest.raises(OptionError, match="takes"):
            parse_request({"options": options, "task": task, "image": image})


def test_a_request_says_what_is_wrong_with_it() -> None:
    name = content_hash(b"picture")
    for request, said in (
        ({"task": "dance"}, "dance"),
        ({"task": "upscale", "image": "../photo.png"}, "upscale.image is '../photo.png'"),
        ({"task": "upscale", "image": name, "options": {"scale": 9}}, "scale is 9"),
        ({"task": "tags", "image": name, "path": "/etc/passwd"}, "unknown option 'tags.path'"),
        ({"task": "text to image", "options": {"steps": 0}}, "steps is 0"),
    ):
        with pytest.raises(OptionError, match=said):
            parse_request(request)
