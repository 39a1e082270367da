"""Measures checkpoints of `seesr generate`: what switching between them leaves in memory, what previews cost.

python -m scripts.check_checkpoints switching CHECKPOINT CHECKPOINT --times 20 --side 64
python -m scripts.check_checkpoints previews CHECKPOINT --side 512
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import torch
import typer

from seesr.autoencoder.vae import VAETiling
from seesr.generation.generator import Generator
from seesr.generation.previews import Previews
from seesr.generation.prompt_embeds import TOKENS
from seesr.machine.device import CPU
from seesr.machine.memory import used_bytes

app = typer.Typer(pretty_exceptions_enable=False, help=__doc__)
Side = Annotated[int, typer.Option(help="Pixels of a side of the pictures.")]


@app.command()
def switching(first: str, second: str, times: int = 20, side: Side = 64, dtype: str = "float32") -> None:
    """Memory of the process after each switch to the other checkpoint and a picture by it."""
    resident = []
    for number in range(times):
        generator = Generator.load(second if number % 2 else first, device="cpu", dtype=dtype)
        generator.text_to_image("a cat", steps=1, seed=number, width=side, height=side)
        generator.unload()
        resident.append(used_bytes(CPU) / 1e6)
        print(f"{number + 1}: {resident[-1]:.1f} MB", flush=True)
    print(
        f"after the second {max(resident[2:]) - resident[1]:+.1f} MB at most, {resident[-1] - resident[1]:+.1f} MB at last"
    )


@app.command()
@torch.inference_mode()
def previews(checkpoint: str, side: Side = 512, dtype: str = "float32", repeats: int = 20) -> None:
    """Time of a preview by the linear map, as a share of that of the UNet's call with guidance beside it."""
    generator = Generator.load(checkpoint, device="cpu", dtype=dtype)
    unet, vae = generator.engine.components["unet"], generator.engine.components["vae"]
    latents = torch.randn(2, unet.config.in_channels, *[side // generator.passes.factor] * 2).to(unet.dtype)
    embeds = torch.zeros(2, TOKENS, unet.config.cross_attention_dim, dtype=unet.dtype)
    linear = Previews(vae, VAETiling())
    step, preview = [], []
    for _ in range(repeats):
        step.append(_seconds(lambda: unet(latents, 999, encoder_hidden_states=embeds)))
        preview.append(_seconds(lambda: linear.of(latents[:1])))
    ratio = sorted(preview)[repeats // 2] / sorted(step)[repeats // 2]
    print(
        f"step {1e3 * sorted(step)[repeats // 2]:.1f} ms, preview {1e3 * sorted(preview)[repeats // 2]:.2f} ms: {ratio:.2%}"
    )


def _seconds(compute: Any) -> float:
    began = time.perf_counter()
    compute()
    return time.perf_counter() - began


if __name__ == "__main__":
    app()
