"""TAESD: the user's file in either layout decodes previews, for SD's VAE alone and only while it has the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from helpers import hooked
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from seesr import WeightsError
from seesr.autoencoder.vae import VAETiling
from seesr.engine import Engine
from seesr.generation.generator import Generator
from seesr.generation.previews import Previews, load_taesd, to_pictures
from seesr.images.resize import to_image


def make_vae(**config: Any) -> AutoencoderKL:
    """A random VAE of SD's factor, scaling and latents."""
    blocks = {"block_out_channels": (32,) * 4, "down_block_types": ["DownEncoderBlock2D"] * 4}
    return AutoencoderKL(**blocks | {"up_block_types": ["UpDecoderBlock2D"] * 4, "latent_channels": 4} | config).eval()


@pytest.fixture(scope="module")
def tiny() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny().eval()


def own_names(tiny: AutoencoderTiny) -> dict[str, Tensor]:
    """The decoder as taesd publishes it: modules are numbered from the clamp that comes first."""
    tensors = {}
    for name, tensor in tiny.decoder.state_dict().items():
        _, number, rest = name.split(".", 2)
        tensors[f"{int(number) + 1}.{rest}"] = tensor
    return tensors


@pytest.fixture
def folder(tiny: AutoencoderTiny, tmp_path: Path) -> Path:
    place = tmp_path / "models" / "vae_approx"
    place.mkdir(parents=True)
    save_file(own_names(tiny), place / "taesd_decoder.safetensors")
    return place


def test_both_layouts_decode_as_diffusers_does(tiny: AutoencoderTiny, folder: Path, tmp_path: Path) -> None:
    latents, vae = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1), make_vae()
    tiny.save_pretrained(tmp_path / "taesd")
    with torch.no_grad():
        expected = [to_image(one) for one in (tiny.decode(latents).sample / 2 + 0.5).split(1)]
    for place in (folder, tmp_path):
        taesd = load_taesd(place, vae)
        assert taesd is not None
        made = to_pictures(latents, taesd)
        assert [one.size for one in made] == [(64, 48)] * 2
        assert [one.tobytes() for one in made] == [one.tobytes() for one in expected]


def test_it_is_for_sd_s_vae_alone_and_damage_is_said(folder: Path, tmp_path: Path) -> None:
    assert load_taesd(tmp_path, make_vae()) is None
    assert load_taesd(folder, make_vae(scaling_factor=0.13025)) is None
    assert load_taesd(folder, make_vae(latent_channels=16)) is None
    assert load_taesd(folder, AutoencoderKL(latent_channels=4).eval()) is None
    save_file({"1.weight": torch.ones(64, 4, 3, 3)}, folder / "taesd_decoder.safetensors")
    with pytest.raises(WeightsError, match=r"taesd_decoder\.safetensors does not fit DecoderTiny: \d+ missing"):
        load_taesd(folder, make_vae())


def test_it_takes_at_most_a_twentieth_of_the_time(folder: Path) -> None:
    vae, now = make_vae(), [0.0]
    taesd = load_taesd(folder, vae)
    assert taesd is not None

    def take_a_second(*_: Any) -> None:
        now[0] += 1

    with hooked(taesd, take_a_second), torch.inference_mode():
        previews = Previews(vae, VAETiling(), taesd, lambda: now[0])
        for _ in range(2):
            previews.begin()
            latents, widths = torch.zeros(1, 4, 16, 16), list[int]()
            for _ in range(6):
                now[0] += 9
                widths.append(previews.of(latents)[0].width)
            assert widths == [16, 16, 128, 16, 128, 16], "at 27 and 46 seconds"
            assert previews.of(torch.zeros(4, 4, 16, 16))[0].width == 16, "four pictures take four seconds"


def test_it_decodes_the_previews_of_a_job_and_changes_no_picture(folder: Path, tmp_path: Path) -> None:
    make_vae().save_pretrained(tmp_path / "vae")
    loaded = Generator.load("pictograms", device="cpu", dtype="float32", vae=tmp_path / "vae")
    seconds, seen = [0.0], list[Image.Image]()

    def take_a_second(*_: Any) -> None:
        seconds[0] += 1

    engine = loaded.engine
    slow = Engine(engine.components, engine.costs, engine.dtype, engine.limits, clock=lambda: seconds[0])
    generator = Generator(slow, loaded.checkpoint, data=tmp_path)
    options = {"steps": 3, "seed": 1, "width": 128, "height": 128}
    with hooked(engine.components["unet"], take_a_second):
        made = generator.text_to_image("a cat", preview=seen.extend, **options)[0]
    assert [one.size for one in seen] == [(128, 128)] * 3, "of latents 16x16"
    assert generator.text_to_image("a cat", **options)[0].image.tobytes() == made.image.tobytes()
