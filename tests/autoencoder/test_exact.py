"""The tiled autoencoder computes what the whole one computes, on any config and size, in bounded memory."""

from __future__ import annotations

import gc
import resource
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from helpers import REFERENCE, LiveBytes
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.flop_counter import FlopCounterMode

from seesr import Upscaler
from seesr.autoencoder.exact import TiledAutoencoder
from seesr.autoencoder.feature_maps import Box, FeatureMap, MapStorage
from seesr.autoencoder.vae import decode, load_vae
from seesr.kernels import attention
from seesr.kernels.group_norm import use_float64_group_norm
from seesr.kernels.inplace import use_inplace_blocks
from seesr.weights.manifest import beside_package

LIMIT = 1e-4


def small_vae(**config: object) -> AutoencoderKL:
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    sizes = {"block_out_channels": [8, 12, 16], "norm_num_groups": 4, "latent_channels": 4}
    return AutoencoderKL(**blocks | sizes | config).eval()


CONFIGS = {
    "attention": {},
    "no attention": {"mid_block_add_attention": False},
    "two layers, two groups": {"layers_per_block": 2, "norm_num_groups": 2},
    "no quantisation convolutions": {"use_quant_conv": False, "use_post_quant_conv": False},
    "attention in blocks": {
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    },
    "one block": {
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "block_out_channels": [8],
    },
}


@torch.inference_mode()
def differences(
    vae: AutoencoderKL, height: int, width: int, tile: int, memory: MapStorage | None = None
) -> tuple[float, float]:
    """Largest absolute differences to the whole: of encoding and of decoding, for a latent size."""
    tiled = TiledAutoencoder(vae, tile, memory)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(1, 3, height * tiled.factor, width * tiled.factor, generator=generator) * 2 - 1
    latents = torch.randn(1, vae.config.latent_channels, height, width, generator=generator)

    def largest(found: Tensor, expected: Tensor) -> float:
        assert found.shape == expected.shape
        return (found - expected).abs().max().item()

    return (
        largest(tiled.encode(pixels), vae.encode(pixels).latent_dist.mean),
        largest(tiled.decode(latents), vae.decode(latents).sample),
    )


def test_precise_norms_change_nothing_else() -> None:
    latents = torch.randn(1, 4, 20, 24)
    for name in ("attention", "attention in blocks"):
        vae, precise = small_vae(**CONFIGS[name]), small_vae(**CONFIGS[name])
        use_float64_group_norm(precise)
        precise.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            assert (precise.decode(latents).sample - vae.decode(latents).sample).abs().max() <= LIMIT


@pytest.mark.parametrize("name", CONFIGS)
def test_any_config(name: str) -> None:
    vae = small_vae(**CONFIGS[name])
    for height, width, tile in ((24, 24, 8), (23, 17, 8), (9, 30, 32)):
        assert max(differences(vae, height, width, tile)) <= LIMIT, (height, width, tile)


def test_names_of_older_checkpoints_are_known(tmp_path: Path) -> None:
    vae, older = small_vae(), {}
    for key, weight in vae.state_dict().items():
        if ".attentions." in key:
            for name, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
                key = key.replace(new, name)
        older[key] = weight
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in older
    (tmp_path / "config.json").write_text(vae.to_json_string())
    save_file(older, tmp_path / "diffusion_pytorch_model.safetensors")
    loaded = load_vae(tmp_path).state_dict()
    assert all(torch.equal(loaded[key], weight) for key, weight in vae.state_dict().items())


@pytest.mark.parametrize("folder", [beside_package("tiny") / "sd-turbo" / "vae", REFERENCE / "sd-turbo" / "vae"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (70, 45)])
def test_real_weights(folder: Path, height: int, width: int) -> None:
    assert max(differences(load_vae(folder), height, width, 32)) <= LIMIT


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), tile=st.integers(1, 12))
def test_any_size_and_tile(height: int, width: int, tile: int) -> None:
    vae = small_vae(block_out_channels=[4, 8], norm_num_groups=2, **TWO_BLOCKS)
    assert max(differences(vae, height, width, tile)) <= LIMIT


def test_wide_networks_are_the_same_by_winograd() -> None:
    sizes = {"block_out_channels": [128, 128], "norm_num_groups": 32, "layers_per_block": 1}
    vae = small_vae(**sizes, **CONFIGS["no attention"], **TWO_BLOCKS)
    with FlopCounterMode(display=False) as counter:
        assert max(differences(vae, 40, 44, 36)) <= LIMIT
        counted = counter.get_flop_counts()["Global"]
    assert counted[torch.ops.aten.bmm] > 0, "no convolution went as products"


TWO_BLOCKS = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}


def test_maps_in_files_change_nothing_and_leave_nothing(tmp_path: Path) -> None:
    memory = MapStorage(limit=20_000, folder=tmp_path)
    assert max(differences(small_vae(), 20, 20, 6, memory)) <= LIMIT
    assert memory.in_files > 0
    assert memory.peak <= 20_000
    gc.collect()
    assert memory.used == 0
    assert list(tmp_path.iterdir()) == []


def test_many_bands_in_files_need_few_open_files() -> None:
    """256 is the least that systems allow a process by default."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    memory, values = MapStorage(limit=0), torch.randn(1, 2, 3, 4)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    try:
        bands = [memory.allocate(2, 3, 4, torch.float32) for _ in range(300)]
        bands[-1].put(slice(None), slice(None), values)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    assert torch.equal(bands[-1].get(slice(None), slice(None)), values)


def test_a_lean_vae_gives_the_same() -> None:
    vae, latents, pixels = small_vae(), torch.randn(1, 4, 10, 12), torch.rand(1, 3, 40, 48)
    with torch.inference_mode():
        expected = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mode()
        kept = latents.clone(), pixels.clone()
        use_inplace_blocks(vae)
        found = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mode()
    assert not any(isinstance(module, ResnetBlock2D) for module in vae.modules())
    assert any(module.inplace for module in vae.modules() if isinstance(module, nn.SiLU))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.equal(latents, kept[0])
    assert torch.equal(pixels, kept[1])


def test_a_batch_is_its_pictures() -> None:
    vae, latents = small_vae(), torch.randn(2, 4, 10, 12)
    tiled = TiledAutoencoder(vae, 6)
    with torch.inference_mode():
        together = tiled.decode(latents)
        assert torch.equal(together[1:], tiled.decode(latents[1:]))
        assert (together - vae.decode(latents).sample).abs().max() <= LIMIT


def test_attention_is_the_same_some_queries_at_a_time_and_as_products() -> None:
    queries, keys, values = torch.randn(3, 2, 2, 30, 512).unbind()
    expected = (queries @ keys.transpose(2, 3) / 512**0.5).softmax(dim=-1) @ values
    assert (attention.math_attention(queries, keys, values) - expected).abs().max() < 1e-5
    assert (
        attention.chunked_attention(queries, keys, values, scores_per_chunk=2 * 2 * 30 * 7) - expected
    ).abs().max() < 1e-5


def test_memory_holds_about_one_map_of_each_layer() -> None:
    memory, vae = MapStorage(), small_vae()
    with torch.inference_mode():
        TiledAutoencoder(vae, 8, memory).decode(torch.randn(1, 4, 64, 64))
    largest = 12 * (64 * 4) ** 2 * 4
    assert memory.peak < 1.7 * largest, "the input of a layer is given up while its output grows"


def test_what_the_device_holds_is_set_by_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    # What lies in host memory does not count: the bands, what is read from them, and the result. A read is then copied to
    # the device, which a CPU would not do.
    for owner, name in ((MapStorage, "allocate"), (FeatureMap, "read_all"), (FeatureMap, "read")):
        original = getattr(owner, name)

        def on_host(*arguments: Any, original: Any = original) -> Any:
            with _disable_current_modes():
                return original(*arguments)

        monkeypatch.setattr(owner, name, on_host)
    monkeypatch.setattr(TiledAutoencoder, "_read", lambda self, x, box: x.read(box).clone())
    tiled, peaks = TiledAutoencoder(small_vae(mid_block_add_attention=False), 16), []
    for side in (16, 48, 96):
        latents, pixels = torch.randn(1, 4, side, side), torch.rand(1, 3, 4 * side, 4 * side)
        with torch.inference_mode():
            for way, values in ((tiled.decode, latents), (tiled.encode, pixels)):
                with LiveBytes() as live:
                    way(values)
                peaks.append(live.peak)
    single, several, many = peaks[:2], peaks[2:4], peaks[4:]
    assert many[0] <= 1.25 * single[0]
    # Small maps have large borders: of the encoder's tiles of 64 pixels, these are a third.
    assert many[1] <= 1.4 * single[1]
    assert all(later <= 1.05 * earlier for earlier, later in zip(several, many, strict=True))


def test_bfloat16_is_as_good_in_tiles_as_whole() -> None:
    exact, coarse = small_vae(), small_vae().to(torch.bfloat16)
    latents = torch.randn(1, 4, 40, 40)
    with torch.inference_mode():
        expected = exact.decode(latents).sample
        errors = [
            (decoded.float() - expected).square().mean()
            for decoded in (coarse.decode(latents.bfloat16()).sample, TiledAutoencoder(coarse, 16).decode(latents))
        ]
    whole, tiled = (-10 * torch.log10(error) for error in errors)
    assert tiled > whole - 0.2


def test_statistics_of_a_map_are_those_of_its_values() -> None:
    values = torch.randn(1, 6, 21, 13) * 3 + torch.arange(6.0).view(1, 6, 1, 1) * 50
    made = FeatureMap.from_tensor(MapStorage(), values, 4, torch.float32)
    mean, variance = made.statistics.by_group(3)
    groups = values.view(3, -1)
    assert torch.allclose(mean[::2], groups.mean(dim=1))
    assert torch.allclose(variance[::2], groups.var(dim=1, correction=0), rtol=1e-5)
    assert torch.equal(made.read_all(), values)
    assert torch.equal(made.read(Box(-1, 9, 5, 20)), values[:, :, :9, 5:])
    assert made.padding_for(Box(-1, 9, 5, 20)) == (0, 7, 1, 0)


def test_norms_are_precise_where_channels_lie_last() -> None:
    norm = torch.nn.GroupNorm(2, 8)
    values = (torch.randn(2, 8, 700, 700) * 0.05 + 5).contiguous(memory_format=torch.channels_last)
    expected = norm.double()(values.double())
    model = torch.nn.Sequential(norm.float())
    use_float64_group_norm(model)
    assert model.state_dict().keys() == {"0.weight", "0.bias"}
    with torch.inference_mode():
        assert (model(values) - expected).abs().max() < 1e-4
        assert torch.equal(model(values.contiguous()), norm(values.contiguous()))


def test_decoded_pixels_are_as_fine_as_the_networks_numbers() -> None:
    vae, latents = small_vae().to(torch.bfloat16), torch.randn(1, 4, 8, 8).bfloat16()
    with torch.inference_mode():
        pixels = decode(vae, latents)
        expected = vae.decode(latents / vae.config.scaling_factor).sample.float() / 2 + 0.5
    assert torch.equal(pixels, expected)
    assert not torch.equal(pixels, pixels.bfloat16().float()), "there would be something to lose"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mean", [0, 5, 30])
def test_norms_of_bfloat16_maps_round_and_no_more(mean: float, threads: int, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(threads)
    values = (torch.randn(1, 64, 300, 300) + mean).bfloat16().contiguous(memory_format=torch.channels_last)
    model = torch.nn.Sequential(torch.nn.GroupNorm(32, 64))
    expected = model.double()(values.double())
    use_float64_group_norm(model.bfloat16())
    with torch.inference_mode():
        assert ((model(values) - expected) ** 2).mean() ** 0.5 < 0.002
        flat = torch.full_like(values, 3)
        assert model(flat).abs().max() < 1e-3, "a map that is the same everywhere has no deviation"


def test_the_products_vae_is_the_stock_one_in_another_layout() -> None:
    vae, stock = (
        Upscaler.load(device="cpu", dtype="float32").engine.components["vae"],
        load_vae(beside_package("tiny") / "sd-turbo" / "vae"),
    )
    latents = torch.randn(1, stock.config.latent_channels, 128, 192)
    with torch.inference_mode():
        assert (vae.decode(latents).sample - stock.decode(latents).sample).abs().max() <= LIMIT
