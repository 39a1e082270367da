"""Training the text-to-image checkpoint: what is said of pictures, and that stock diffusers loads what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from diffusers import StableDiffusionPipeline
from helpers import ROOT
from PIL import Image, ImageDraw

from scripts.training.pictogram_pictures import SIDE, STYLES, Pictogram, cached_pictograms, caption, words
from scripts.training.pictograms import LATENT_CHANNELS, narrow_autoencoder, train_pictograms
from seesr.autoencoder.vae import load_vae

pytestmark = pytest.mark.training

VAE = ROOT / "weights" / "tiny" / "sd-turbo" / "vae"
COLOURS = ("red", "green", "blue")


def drawn(colour: str, style: str) -> Pictogram:
    """A disc, or a square if it is flat."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    (draw.rectangle if style == "flat" else draw.ellipse)((24, 24, 104, 104), fill=colour)
    return Pictogram((f"{colour} thing", colour), ("shape", "paint"), style, np.asarray(picture))


PICTURES = [drawn(colour, style) for colour in COLOURS for style in ("flat", "3d")]


def test_captions_name_the_thing_and_at_times_its_style_its_keywords_or_nothing() -> None:
    pictogram, rng = PICTURES[0], np.random.default_rng(0)
    said = [caption(pictogram, rng) for _ in range(4000)]
    assert 0.08 < said.count("") / len(said) < 0.12, "one in ten is empty, for guidance"
    spoken = [one for one in said if one]
    assert all("red" in one for one in spoken)
    assert 0.7 < sum("flat" in one for one in spoken) / len(spoken) < 0.9
    assert 0.1 < sum("shape" in one or "paint" in one for one in spoken) / len(spoken) < 0.3
    assert {"flat, red thing", "red thing flat", "red, shape", "red thing"} <= set(spoken)
    allowed = set(" ".join(words(PICTURES)).split())
    assert all(word in allowed for one in spoken for word in one.replace(",", "").split())


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
        assert pictogram.pixels[0, 0].tolist() == [255, 255, 255]
        assert pictogram.pixels[64, 64].tolist() == [200, 0, 0]


def test_a_narrow_autoencoder_still_shows_the_picture() -> None:
    pictures = torch.from_numpy(np.stack([picture.pixels for picture in PICTURES])).movedim(-1, 1).float() / 127.5 - 1
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


def test_what_is_written_is_loaded_by_stock_diffusers_and_draws(tmp_path: Path) -> None:
    output = tmp_path / "pictograms"
    train_pictograms(PICTURES, tmp_path / "work", output, VAE, autoencoder_steps=2, steps=2, batch=4, seed=0)
    assert sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) < 6e6
    pipe = StableDiffusionPipeline.from_pretrained(output, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    (picture,) = pipe("red thing, flat", num_inference_steps=2, generator=generator, output_type="np").images
    assert picture.shape == (SIDE, SIDE, 3)
    assert np.isfinite(picture).all()
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    latents = pipe.vae.encode(torch.from_numpy(np.stack([p.pixels for p in PICTURES])).movedim(-1, 1).float() / 127.5 - 1)
    assert (latents.latent_dist.mode() * pipe.vae.config.scaling_factor).std().item() == pytest.approx(1, abs=0.05)
