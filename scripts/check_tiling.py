"""Measures tiling: how near the tiled VAE is to the whole one, what it saves, and whether tiles leave seams.

python scripts/check_tiling.py differences FOLDER/sd-turbo/vae --size 512x512 --size 768x512 --tile 32
python scripts/check_tiling.py estimate FOLDER/sd-turbo/vae PICTURES
python scripts/check_tiling.py cost FOLDER/sd-turbo/vae --side 2048
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from seesr.autoencoder.estimated import EstimatedTiledAutoencoder
from seesr.autoencoder.exact import TiledAutoencoder
from seesr.autoencoder.vae import load_vae, vae_scale_factor
from seesr.evaluation.degradation import crop_to_multiple, downscale_bicubic
from seesr.evaluation.seams import seam_ratio, tile_borders
from seesr.machine.device import CPU, to_device
from seesr.machine.memory import PeakMemory, used_bytes
from seesr.tiling import Tiles
from seesr.upscaler import Upscaler

app = typer.Typer(pretty_exceptions_enable=False, help=__doc__)
Folder = Annotated[Path, typer.Argument(help="A vae/ folder.")]


@app.command()
@torch.inference_mode()
def differences(folder: Folder, size: Annotated[list[str], typer.Option()], tile: int = 32, dtype: str = "float32") -> None:
    """Largest absolute difference of tiled and whole, for encoding and decoding.

    The whole one is the stock module as it is loaded; the tiled one is laid out as the product lays it out.
    """
    vae, laid_out = load_vae(folder, getattr(torch, dtype)), load_vae(folder, getattr(torch, dtype))
    to_device(laid_out, CPU)
    tiled, factor = TiledAutoencoder(laid_out, tile), vae_scale_factor(vae)
    for text in size:
        width, height = map(int, text.split("x"))
        generator = torch.Generator().manual_seed(0)
        pixels = (torch.rand(1, 3, height, width, generator=generator) * 2 - 1).to(vae.dtype)
        shape = (1, vae.config.latent_channels, height // factor, width // factor)
        latents = torch.randn(shape, generator=generator).to(vae.dtype)
        encoded = (tiled.encode(pixels) - vae.encode(pixels).latent_dist.mean).abs().max().item()
        decoded = (tiled.decode(latents) - vae.decode(latents).sample).abs().max().item()
        print(f"{text}, tile {tile}: encode {encoded:.1e}, decode {decoded:.1e}", flush=True)


@app.command()
@torch.inference_mode()
def estimate(folder: Folder, pictures: Path, tile: int = 48, enlarge: int = 1) -> None:
    """PSNR of estimated tiles to the exact result, for decoding real pictures' latents."""
    vae = load_vae(folder)
    factor, estimated, decibels = vae_scale_factor(vae), EstimatedTiledAutoencoder(vae, tile), []
    for path in sorted(pictures.glob("*.png")):
        image = Image.open(path).convert("RGB")
        image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.BICUBIC)
        image = image.crop((0, 0, image.width - image.width % factor, image.height - image.height % factor))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        latents = vae.encode(pixels).latent_dist.mean
        error = (estimated.decode(latents) - vae.decode(latents).sample).square().mean()
        decibels.append(10 * torch.log10(4 / error).item())
        print(f"{path.stem}: {decibels[-1]:.1f} dB", flush=True)
    print(f"lowest {min(decibels):.1f} dB, mean {sum(decibels) / len(decibels):.1f} dB")


@app.command()
@torch.inference_mode()
def decode(folder: Folder, side: int, tile: int, dtype: str = "bfloat16") -> None:
    """Decodes noise once, whole with tile 0; prints seconds and the peak beyond the weights."""
    vae = load_vae(folder, getattr(torch, dtype))
    to_device(vae, CPU)
    latent_side = side // vae_scale_factor(vae)
    latents = torch.randn(1, vae.config.latent_channels, latent_side, latent_side).to(vae.dtype)
    before, peak, started = used_bytes(CPU), PeakMemory(CPU), time.perf_counter()
    if tile:
        TiledAutoencoder(vae, tile).decode(latents)
    else:
        vae.decode(latents)
    print(time.perf_counter() - started, (peak.bytes() - before) / 1e9)


@app.command()
def cost(folder: Folder, side: int = 2048, tile: int = 64, dtype: str = "bfloat16") -> None:
    """Seconds and memory of a decode, whole and tiled, each in a process of its own."""
    costs = {}
    for number in (0, tile):
        arguments = ["decode", str(folder), str(side), str(number), "--dtype", dtype]
        done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
        seconds, memory = costs[number] = tuple(map(float, done.stdout.split()))
        print(f"{'tile ' + str(number) if number else 'whole'}: {seconds:.2f} s, {memory:.3f} GB", flush=True)
    (seconds, memory), (tiled_seconds, tiled_memory) = costs[0], costs[tile]
    print(f"tiled to whole: {tiled_seconds / seconds:.2f} of the time, {tiled_memory / memory:.2f} of the memory")


@app.command()
def seams(pictures: Path, tile: int = 48, overlap: int = 16, steps: int = 2) -> None:
    """Seam ratio of pictures reduced to a quarter and enlarged with small tiles, and of the same lines without tiles."""
    upscaler, ratios = Upscaler.load(), []
    factor = upscaler.networks.factor
    for path in sorted(pictures.glob("*.png")):
        low = downscale_bicubic(crop_to_multiple(Image.open(path).convert("RGB"), 4))
        tiled = upscaler.upscale(low, scale=4, steps=steps, seed=0, tile=tile, tile_overlap=overlap, vae_tile=32)
        whole = upscaler.upscale(low, scale=4, steps=steps, seed=0, tile=0, vae_tile=0)
        width, height = (side // factor for side in tiled.sizes.padded)
        borders = tile_borders(Tiles(height, width, tile, overlap), factor, tiled.sizes)
        in_tiles, without = (seam_ratio(result.image, *borders, period=4) for result in (tiled, whole))
        ratios.append((in_tiles, without))
        print(f"{path.stem}: {in_tiles:.3f} in tiles, {without:.3f} without, {in_tiles / without:.3f}", flush=True)
    tiled_mean, whole_mean = np.mean(ratios, axis=0)
    relative = [in_tiles / without for in_tiles, without in ratios]
    print(f"mean {tiled_mean:.3f} in tiles, {whole_mean:.3f} without; quotient {min(relative):.3f} to {max(relative):.3f}")


if __name__ == "__main__":
    app()
