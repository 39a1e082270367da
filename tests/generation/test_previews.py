"""Previews: of what is made at that moment, and of no effect on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import difference, hooked
from PIL import Image

from seesr.autoencoder.vae import VAETiling
from seesr.errors import CanceledError
from seesr.generation.generator import Generator
from seesr.generation.previews import fit_preview_map, to_previews


@pytest.fixture(scope="module")
def embedded() -> Generator:
    """The embedded checkpoint, whose VAE has learnt what pictures are."""
    return Generator.load("pictograms", device="cpu", dtype="float32")


def test_a_preview_after_each_step_comes_nearer_to_the_picture(embedded: Generator) -> None:
    seen, encoded = list[list[Image.Image]](), list[int]()
    values = {"steps": 6, "seed": 5, "batch_count": 2}
    with hooked(embedded.engine.components["vae"].encoder, lambda *_: encoded.append(1)):
        made = embedded.text_to_image("red apple, 3d", preview=seen.append, **values)
        count = len(encoded)
        assert count > 0
        embedded.text_to_image("red apple, 3d", preview=seen.append, **values)
        assert len(encoded) == count, "the map is fitted once"
    plain = embedded.text_to_image("red apple, 3d", **values)
    assert [one.image.tobytes() for one in made] == [one.image.tobytes() for one in plain]
    assert [[one.size for one in pictures] for pictures in seen] == [[(32, 32)]] * 24
    final = made[0].image.resize((32, 32), Image.Resampling.BOX)
    distances = [difference(pictures[0], final) for pictures in seen[:6]]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] / 2


def test_latents_of_any_scale_or_with_nan_have_a_preview(embedded: Generator) -> None:
    vae = embedded.engine.components["vae"]
    with torch.inference_mode():
        preview_map = fit_preview_map(vae, VAETiling())
    assert preview_map.shape == (vae.config.latent_channels + 1, 3)
    noise = torch.randn(2, vae.config.latent_channels, 6, 4, generator=torch.Generator().manual_seed(1))
    one, large = (to_previews(scale * noise, preview_map) for scale in (1.01, 14.6))
    assert [image.size for image in large] == [(4, 6)] * 2
    assert difference(one[0], large[0]) < 8
    noise[0, 0, 0, 0] = torch.nan
    assert np.asarray(to_previews(noise, preview_map)[0]).shape == (6, 4, 3)


def test_what_a_preview_raises_ends_the_job(embedded: Generator) -> None:
    calls = list[int]()

    def stop(_: list[Image.Image]) -> None:
        calls.append(1)
        raise CanceledError("enough")

    with pytest.raises(CanceledError):
        embedded.text_to_image("a fox", steps=4, seed=1, preview=stop)
    assert calls == [1]
