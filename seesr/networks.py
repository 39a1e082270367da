"""SeeSR's networks: how each is read from a weights folder, what a pass costs, and each of them as one function."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from seesr.autoencoder.estimated import receptive_radius
from seesr.autoencoder.vae import (
    VAETiling,
    attention_width,
    decode,
    encode,
    load_vae,
    max_exact_latents,
    tiling_mode,
    vae_scale_factor,
)
from seesr.cleaner import clean, load_cleaner
from seesr.components import Components, NetworkSpec
from seesr.diffusion.denoise import ConditionsForTiles, denoise, initial_latents
from seesr.diffusion.denoiser import Denoiser, load_controlnet, load_unet
from seesr.diffusion.image_attention import IMAGE_TOKEN_WIDTH
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.steering import Steering, nearest_to_mean
from seesr.diffusion.text import load_prompt_encoder
from seesr.images.resize import resize, size_of, to_array, to_image, to_tensor
from seesr.images.samples import Pixels
from seesr.images.sizes import Size, SizeRequirements, Sizes
from seesr.kernels.group_norm import use_float64_group_norm
from seesr.kernels.inplace import use_inplace_blocks
from seesr.machine.device import dtype_of, to_device_of
from seesr.notes import Notes
from seesr.options import Options
from seesr.planning.costs import CostModel
from seesr.planning.nan_guard import run_with_nan_guard
from seesr.stages import Progress
from seesr.tagging.ram import load_ram
from seesr.tiling import Tiles
from seesr.weights.config import read_config
from seesr.weights.resolve import CLEANER, WeightsFolder

DENOISER = ("unet", "controlnet")
"""Run together, so an upscaling job moves and releases them together."""


def seesr_networks(weights: WeightsFolder, dtype: torch.dtype) -> list[NetworkSpec]:
    """The networks of a weights folder in the published layout, in the order in which they are loaded."""
    root, base = weights.root, weights.root / "sd-turbo"
    # A VAE that says so overflows in float16.
    upcast = dtype == torch.float16 and read_config(base / "vae" / "config.json").get("force_upcast", False)
    specs = [
        # First, while there is room: its file stays mapped until DAPE is merged.
        NetworkSpec("ram", lambda: load_ram(root / "ram", dtype=dtype, token_width=IMAGE_TOKEN_WIDTH)),
        # Compiled for a CPU, in bfloat16, its blocks take three times as long (docs/speed.md).
        NetworkSpec(
            "vae",
            lambda: _load_vae(base / "vae", torch.float32 if upcast else dtype),
            contiguous_on_cuda=True,
            compiled_on_gpu=True,
        ),
        NetworkSpec(
            "unet",
            lambda: load_unet(base / "unet", root / "seesr" / "unet", dtype),
            compiled_on_cpu=True,
            compiled_on_gpu=True,
            has_denoiser_attention=True,
        ),
        NetworkSpec(
            "controlnet",
            lambda: load_controlnet(root / "seesr" / "controlnet", dtype),
            compiled_on_cpu=True,
            compiled_on_gpu=True,
            has_denoiser_attention=True,
        ),
        NetworkSpec("prompt_encoder", lambda: load_prompt_encoder(base, dtype)),
    ]
    if (root / CLEANER).is_dir():
        # Only the embedded model has one.
        specs.append(NetworkSpec("cleaner", lambda: load_cleaner(root / CLEANER, dtype)))
    return specs


def _load_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    vae = load_vae(folder, dtype)
    use_float64_group_norm(vae)
    use_inplace_blocks(vae)
    return vae


def network_costs(components: Components) -> CostModel:
    """What the memory plan must know of these networks: those of SeeSR, or of a text-to-image checkpoint."""
    vae, unet = components["vae"], components["unet"]
    denoiser = tuple(name for name in DENOISER if name in components)  # a checkpoint has no ControlNet
    together = [denoiser, *((name,) for name in components.networks if name not in denoiser)]
    sizes = [components.nbytes(*names) for names in together]
    return CostModel(
        vae_channels=max(vae.config.block_out_channels[:2]),
        unet_channels=unet.config.block_out_channels[0],
        factor=vae_scale_factor(vae),
        itemsize=dtype_of(vae).itemsize,
        weight_bytes=sum(sizes),
        largest_weight_bytes=max(sizes),
        vae_halo=receptive_radius(vae),
        max_exact_latents=max_exact_latents(vae),
        latent_channels=vae.config.latent_channels,
        attention_width=attention_width(vae),
    )


class SeeSRNetworks:
    """The networks as functions of pictures and latents: each runs on the device, and again in float32 after NaN."""

    def __init__(self, components: Components, weights: WeightsFolder) -> None:
        self.components, self.factor = components, vae_scale_factor(components["vae"])
        self.denoiser = Denoiser(*(components[name] for name in DENOISER))
        config = read_config(weights.root / "sd-turbo" / "scheduler" / "scheduler_config.json")
        self.schedule = NoiseSchedule.from_config(config)
        minimum, margin = components["unet"].config.sample_size * self.factor, weights.defaults.margin * self.factor
        self.size_requirements = SizeRequirements(minimum, self.factor, margin)

    @property
    def has_cleaner(self) -> bool:
        return "cleaner" in self.components

    @property
    def tag_count(self) -> int:
        return self.components["ram"].config.num_tags

    def latent_size(self, sizes: Sizes) -> tuple[int, int]:
        """(height, width) of the latents of a padded picture."""
        width, height = (side // self.factor for side in sizes.padded)
        return height, width

    def tiling_mode(self, height: int, width: int, vae_tile: int) -> str:
        """What the VAE does with latents of this size: `whole`, `exact tiles` or `estimated tiles`."""
        return tiling_mode(self.components["vae"], height, width, vae_tile)

    def clean(
        self, images: Sequence[Pixels], strength: float, working: Size, report: Progress, notes: list[Notes]
    ) -> list[Pixels]:
        """Takes blur, noise and JPEG blocks out of RGB pictures; what is to become smaller is reduced first.

        `strength` is the share of the change that is taken, above 0 to 1.
        """
        cleaner, cleaned = self.components["cleaner"], []
        with self.components.running("cleaner"):
            for number, image in enumerate(images):
                report("clean", number, len(images))
                pixels = to_tensor(resize(image, min(size_of(image), working)))
                compute = partial(clean, cleaner, pixels)
                result = run_with_nan_guard("clean", [cleaner], compute, [notes[number]])
                convert = to_image if isinstance(image, Image.Image) else to_array
                cleaned.append(convert(result if strength == 1 else torch.lerp(pixels, result, strength)))
        return cleaned

    def encode(self, image: Tensor, tiling: VAETiling, notes: list[Notes]) -> Tensor:
        """Latents `(B, C, h, w)`, float32, of `image` `(B, 3, H, W)` in 0..1."""
        vae = self.components["vae"]
        with self.components.running("vae"):
            return run_with_nan_guard("encode", [vae], lambda: encode(vae, image, tiling), notes).float()

    def noisy(self, latents: Tensor, seeds: list[int], particles: int) -> Tensor:
        """The latents from which denoising starts: `(B * particles, C, h, w)`."""
        return initial_latents(self.schedule, latents, seeds, particles)

    def denoise(
        self,
        latents: Tensor,
        image: Tensor,
        conditions: ConditionsForTiles,
        tiles: Tiles,
        options: Options,
        report: Progress,
        notes: list[Notes],
    ) -> Tensor:
        """Latents `(B, C, h, w)` without noise; of several particles the one nearest to their mean."""
        assert options.steps is not None  # `Upscaler.with_defaults` sets them
        steering = Steering(options.particles, options.kds_bandwidth, options.kds_patch)
        settings = tiles, options.steps, options.conditioning_scale, steering, report

        def run() -> Tensor:
            return denoise(self.denoiser, self.schedule, latents, image, conditions, *settings)

        with self.components.running(*DENOISER):
            return nearest_to_mean(run_with_nan_guard("denoise", [self.denoiser], run, notes), steering.particles)

    def vae_decode(self, latents: Tensor, tiling: VAETiling, notes: list[Notes]) -> Tensor:
        """Pixels `(B, 3, H, W)` in about 0..1, float32."""
        vae = self.components["vae"]
        with self.components.running("vae"):
            return run_with_nan_guard("vae_decode", [vae], lambda: decode(vae, to_device_of(latents, vae), tiling), notes)
