"""Training the text-to-image checkpoint: scenes, what is said of them and held out, and that stock diffusers loads it."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from helpers import ROOT
from PIL import Image, ImageDraw

from scripts.check_pictograms import Judge, background_colour, check_pictograms, seen_hue
from scripts.training import pictogram_pictures
from scripts.training.line_drawings import train_line_drawings
from scripts.training.pictogram_pictures import SIDE, STYLES, Pictogram, cached_pictograms, fetch_packages
from scripts.training.pictogram_scenes import COLOURS, HUES, Scene, Scenes, caption, draw, hold_out, main_hue, words
from scripts.training.pictograms import (
    LATENT_CHANNELS,
    TEXT_CONFIG,
    UNET_CONFIG,
    WatchedAttention,
    narrow_autoencoder,
    picture_parts,
    train_pictograms,
    watch_attention,
)
from seesr.autoencoder.vae import load_vae
from seesr.generation.generator import Generator

pytestmark = pytest.mark.training

VAE = ROOT / "weights" / "tiny" / "sd-turbo" / "vae"
WIDTH = int(TEXT_CONFIG["hidden_size"])
SHAPES = ("disc", "square", "bar", "cross", "ring", "dot")


def drawn(shape: str, style: str) -> Pictogram:
    """A shape, red if it is flat, yellow if it is 3d, else green."""
    picture = Image.new("RGBA", (SIDE, SIDE))
    pen, colour = ImageDraw.Draw(picture), {"flat": "red", "3d": "gold"}.get(style, "green")
    if shape in ("disc", "dot"):
        pen.ellipse((24, 24, 104, 104) if shape == "disc" else (4, 4, 40, 40), fill=colour)
    elif shape == "ring":
        pen.ellipse((16, 16, 112, 112), outline=colour, width=12)
    else:
        if shape in ("square", "bar"):
            pen.rectangle((24, 24 if shape == "square" else 52, 104, 104 if shape == "square" else 76), fill=colour)
        if shape == "cross":
            pen.rectangle((56, 16, 72, 112), fill=colour)
            pen.rectangle((16, 56, 112, 72), fill=colour)
    return Pictogram((f"{shape} thing", shape), ("shape", "paint"), style, np.asarray(picture))


PICTURES = [drawn(shape, style) for shape in SHAPES for style in ("flat", "3d", "drawn")]


def test_captions_name_the_things_and_at_times_style_and_keywords_or_nothing() -> None:
    scene, rng = Scene((PICTURES[0],)), np.random.default_rng(0)
    said = [caption(scene, rng) for _ in range(4000)]
    assert 0.08 < said.count("") / len(said) < 0.12, "one in ten is empty, for guidance"
    spoken = [one for one in said if one]
    assert 0.7 < sum("flat" in one for one in spoken) / len(spoken) < 0.9
    assert 0.03 < sum("shape" in one or "paint" in one for one in spoken) / len(spoken) < 0.1
    assert {"flat, disc thing", "disc thing flat", "a disc, flat", "disc"} <= set(spoken)
    both = {caption(Scene((PICTURES[0], PICTURES[3]), background="blue"), rng) for _ in range(400)}
    assert {"disc and square, flat, blue background", "disc on the left and square on the right, flat, on blue"} <= both
    turned = {caption(Scene((PICTURES[0],), colour="blue"), rng) for _ in range(200)}
    assert {"blue disc, flat", "blue disc thing, flat"} <= turned
    allowed = set(" ".join(words(PICTURES)).split())
    rng = np.random.default_rng(1)
    scenes = Scenes(PICTURES)
    for _ in range(500):
        assert set(caption(scenes.composed(rng), rng).replace(",", "").split()) <= allowed


def test_what_is_held_out_is_in_no_scene() -> None:
    scenes, rng = Scenes(PICTURES * 1, held_out_seed=3), np.random.default_rng(0)
    held_out = scenes.held_out
    assert held_out == hold_out(PICTURES, 3) != hold_out(PICTURES, 4)
    assert held_out.pictures
    assert held_out.pairs
    seen = [*scenes.plain(), *(scenes.composed(rng) for _ in range(2000))]
    shown = {(p.thing, p.style) for scene in seen for p in scene.pictograms}
    assert shown == {(p.thing, p.style) for p in PICTURES} - held_out.pictures
    things = [frozenset(p.thing for p in scene.pictograms) for scene in seen]
    assert not any(pair <= together for pair in held_out.pairs for together in things)
    assert not {(scene.colour, scene.pictograms[0].thing) for scene in seen} & held_out.colours
    assert {len(scene.pictograms) for scene in seen} == {1, 2, 3}
    assert {scene.background for scene in seen} == set(COLOURS)


def test_a_scene_looks_as_it_is_said() -> None:
    disc, square = PICTURES[0], PICTURES[4]
    both = draw(Scene((disc, square), background="blue"))
    assert both[64, 32].tolist() == [255, 0, 0]
    assert both[64, 96].tolist() == [255, 215, 0]
    assert background_colour(both) == "blue"
    halves = draw(Scene((disc,), background="black", other="pink", two_tone=True))
    assert (halves[2, 2].tolist(), halves[2, 125].tolist()) == (list(COLOURS["black"]), list(COLOURS["pink"]))
    gradient = draw(Scene((disc,), background="black", other="white"))
    assert (gradient[0, 0] < 30).all()
    assert (gradient[127, 0] > 250).all()
    small = draw(Scene((disc,), size="small", place="at the top"))
    assert (small[70:] == 255).all()
    assert small[35, 64].tolist() == [255, 0, 0]
    for colour, hue in HUES.items():
        turned = draw(Scene((disc,), colour=colour))
        assert seen_hue(turned) == pytest.approx(hue, abs=3) or (colour == "red" and seen_hue(turned) > 355)
    assert main_hue(disc.pixels) == pytest.approx(0, abs=1)


def test_packages_are_those_that_were_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "emojibase-data@17.0.0"
    monkeypatch.setattr(pictogram_pictures, "PACKAGES", {name: hashlib.sha256(b"another").hexdigest()})
    (tmp_path / "emojibase-data-17.0.0.tgz").write_bytes(b"this")
    with pytest.raises(typer.BadParameter, match="is not the package that was trained on"):
        fetch_packages(tmp_path)
    (tmp_path / "emojibase-data-17.0.0.tgz").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(typer.BadParameter, match=r"install Node\.js, or put emojibase-data-17\.0\.0\.tgz into"):
        fetch_packages(tmp_path)


def test_pictures_are_read_from_packages_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.training.pictogram_pictures.THINGS", tmp_path / "things.txt")
    (tmp_path / "things.txt").write_text("# a comment\nHot Beverage: coffee\n")
    with pytest.raises(typer.BadParameter, match="give --packages"):
        cached_pictograms(None, tmp_path / "pictures.npz")
    names = tmp_path / "emojibase-data-17.0.0"
    (names / "en").mkdir(parents=True)
    entry = {"label": "Hot Beverage", "hexcode": "2615", "tags": ["beverage", "Tea", "hot tea", "steam"]}
    (names / "en" / "data.json").write_text(json.dumps([entry]))
    (names / "package.json").write_text("{}")
    transparent = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    transparent.paste((200, 0, 0, 255), (64, 64, 192, 192))
    for package in STYLES:  # as pictures, so that nothing need draw SVG
        (tmp_path / package / "assets").mkdir(parents=True)
        (tmp_path / package / "package.json").write_text("{}")
        transparent.save(tmp_path / package / "assets" / "2615.webp", lossless=True)
    made = cached_pictograms(tmp_path, tmp_path / "pictures.npz")
    again = cached_pictograms(None, tmp_path / "pictures.npz")
    assert [pictogram.style for pictogram in made] == list(STYLES.values()) == [pictogram.style for pictogram in again]
    for pictogram in (made[0], again[0]):
        assert pictogram.names == ("hot beverage", "coffee")
        assert pictogram.keywords == ("tea", "steam"), "one word each, and not those of the name"
        assert pictogram.pixels[0, 0].tolist() == [0, 0, 0, 0]
        assert pictogram.pixels[64, 64].tolist() == [200, 0, 0, 255]


def test_a_narrow_autoencoder_still_shows_the_picture() -> None:
    pixels = np.stack([draw(Scene((pictogram,))) for pictogram in PICTURES])
    pictures = torch.from_numpy(pixels).movedim(-1, 1).float() / 127.5 - 1
    vae = load_vae(VAE)
    narrow = narrow_autoencoder(vae, pictures)
    with torch.no_grad():
        latents = narrow.encode(pictures).latent_dist.mode()
        inside = (narrow.decode(latents).sample - vae.decode(vae.encode(pictures).latent_dist.mode()).sample)[
            ..., 8:-8, 8:-8
        ]
    assert latents.shape == (len(pictures), LATENT_CHANNELS, SIDE // 4, SIDE // 4)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert inside.square().mean().sqrt() < 0.1


def test_attention_is_watched_without_changing_what_the_unet_says() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET_CONFIG)
    given = torch.randn(2, LATENT_CHANNELS, SIDE // 4, SIDE // 4), torch.tensor([3, 999]), torch.randn(2, 77, WIDTH)
    plain = unet(*given).sample
    watched = watch_attention(unet)
    assert (unet(*given).sample - plain).abs().max() < 1e-4
    assert len(watched) == 4, "one on the way down, one in the middle, two on the way up"
    middle, quarters = WatchedAttention(77, quarters=False), WatchedAttention(77, quarters=True)
    assert middle.wanted(heads=2, cells=16).tolist() == [list(range(61, 77))] * 2
    top = quarters.wanted(heads=4, cells=64)[:, :16].tolist()
    assert top[0] == [61, 0, 62, 0, 63, 0, 64, 0] + 8 * [0], "the upper left quarters of the first row of parts"
    assert top[3] == 8 * [0] + [0, 61, 0, 62, 0, 63, 0, 64]
    # In a few steps it learns to look there.
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-3)
    losses = list[float]()
    for _ in range(6):
        unet(*given)
        loss = torch.stack([attention.loss for attention in watched]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(77), abs=0.3)
    assert losses[-1] < losses[0] - 0.3


def test_parts_of_a_picture_stand_row_by_row() -> None:
    latents = torch.arange(2 * LATENT_CHANNELS * 32 * 32).view(2, LATENT_CHANNELS, 32, 32).float()
    parts = picture_parts(latents)
    assert parts.shape == (2, 16, LATENT_CHANNELS * 64)
    assert torch.equal(parts[1, 6], latents[1, :, 8:16, 16:24].flatten())


def test_what_is_written_is_loaded_by_stock_diffusers_goes_on_and_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, work = tmp_path / "pictograms", tmp_path / "work"
    train_pictograms(PICTURES, work, output, VAE, autoencoder_steps=2, text_steps=2, steps=2, batch=4, seed=0, pool=20)
    assert sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) < 30e6
    pipe = StableDiffusionPipeline.from_pretrained(output, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    (picture,) = pipe("red thing, flat", num_inference_steps=2, generator=generator, output_type="np").images
    assert picture.shape == (SIDE, SIDE, 3)
    assert np.isfinite(picture).all()
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.scheduler.alphas_cumprod[-1].sqrt() < 0.01
    assert sum(parameter.numel() for parameter in pipe.unet.parameters()) < 12e6
    assert {"disc", "thing", "paint"} <= set((output / "words.txt").read_text().split())
    held_out = json.loads((output / "held_out.json").read_text())
    assert held_out["pictures"] == sorted(f"{thing}, {style}" for thing, style in hold_out(PICTURES, 0).pictures)

    further = tmp_path / "further"
    train_pictograms(PICTURES, tmp_path / "again", further, VAE, 2, 2, steps=1, batch=4, seed=0, pool=20, start=output)
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (further / vae).read_bytes() == (output / vae).read_bytes()
    assert json.loads((further / "vae" / "config.json").read_text()) == json.loads(
        (output / "vae" / "config.json").read_text()
    )

    # The adapter for line drawings, which the generator reads as any other; at 0 it changes nothing.
    lines = [drawn(shape, "line drawing") for shape in SHAPES]
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    train_line_drawings(lines, work, tmp_path / "models" / "loras" / "lines.safetensors", output, steps=2, batch=4, seed=0)
    assert (tmp_path / "models" / "loras" / "lines.safetensors").stat().st_size < 2e6
    generator = Generator.load(output, device="cpu", dtype="float32")
    plain, at_nought, changed = (
        generator.text_to_image(f"disc{tag}", steps=2, seed=1)[0].image.tobytes()
        for tag in ("", " <lora:lines:0>", " <lora:lines:0.8>")
    )
    assert at_nought == plain != changed

    told = json.dumps([[p.names, p.keywords, p.style] for p in PICTURES])
    for name in ("pictures.npz", "everything.npz"):
        np.savez_compressed(work / name, pixels=np.stack([p.pixels for p in PICTURES]), told=np.array(told))
    check_pictograms(work, tmp_path / "sheets", output, quick=True, steps=1)
    figures = json.loads((tmp_path / "sheets" / "figures.json").read_text())
    assert [row[3] for row in figures if row[0].endswith("right thing first")] == ["100.0%"]
    assert {path.stem for path in (tmp_path / "sheets").glob("*.png")} >= {
        "known",
        "held_out",
        "guidance",
        "nearest",
        "nonsense",
    }


def test_the_judge_finds_what_a_picture_shows() -> None:
    judge = Judge(PICTURES)
    pictures = np.stack([draw(Scene((pictogram,))) for pictogram in PICTURES])
    found = judge(pictures - pictures // 40)  # a little darker
    assert [verdict.pictograms[0].thing for verdict in found] == [pictogram.thing for pictogram in PICTURES]
    assert [verdict.pictograms[0].style for verdict in found] == [pictogram.style for pictogram in PICTURES]
