"""Where a picture's time goes: `scripts/start_seesr.sh benchmark --size 128x128 --size 256x192`.

For each network on the way: seconds, operations, operations a second and the share of what this machine's matrix products
reach in the same precision; and beside them the baseline, what the published code does: stock modules in float32
(float16 on a GPU), contiguous, whole, without margins. Pictures are noise: time does not depend on what is in them.
Compare figures of one run only; a machine's speed changes from hour to hour.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seesr import Options, Upscaler
from seesr.autoencoder.vae import load_vae
from seesr.diffusion.denoiser import load_denoiser
from seesr.diffusion.sampler import sample
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import load_prompt_encoder
from seesr.runtime.device import dtype_name
from seesr.runtime.memory import PeakMemory, free_memory
from seesr.tagging.ram import load_ram
from seesr.weights.files import read_config

NETWORKS = {
    "clean": ("Cleaner",),
    "tags": ("RAM", "SwinTransformer", "TagHead"),
    "prompt": ("PromptEncoder",),
    "encode": ("Encoder",),
    "denoise": ("Denoiser",),
    "pixels": ("Decoder",),
}
"""Which outermost modules' operations belong to which stage. The tiled VAE's are not seen: it runs layer by layer."""
MATMUL_SIDE = 2048
PROMPT = "clean, high-resolution, 8k"


STARTUP = """
import time
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.models import Transformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
began = time.perf_counter()
from seesr import Upscaler
Upscaler.load("tiny", device="cpu")
print(time.perf_counter() - began)
"""
"""What a process pays beyond the libraries it cannot do without: our own imports, and loading the embedded model."""


@dataclass
class Measured:
    """One way of doing it, for one size."""

    name: str
    dtype: torch.dtype
    seconds: dict[str, float]
    """The fastest run's, by stage."""
    flop: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    """Bytes."""

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def record(self, peaks: dict[torch.dtype, float]) -> dict[str, Any]:
        stages = {
            stage: {
                "seconds": seconds,
                "flop": flop,
                "gflop_s": flop / seconds / 1e9,
                "share": flop / seconds / peaks[self.dtype],
            }
            for stage, seconds in self.seconds.items()
            for flop in [self.flop.get(stage, 0)]
        }
        return {"dtype": dtype_name(self.dtype), "seconds": self.total, "peak_bytes": self.peak, "stages": stages}


def main(
    size: Annotated[list[str] | None, typer.Option(metavar="WxH", help="Input size; several are timed in turn.")] = None,
    scale: float = 4.0,
    steps: int = 1,
    repeat: Annotated[int, typer.Option(min=1, help="Runs that count, after one that does not.")] = 2,
    baseline: Annotated[bool, typer.Option(help="Time the stock modules too; takes long on a CPU.")] = True,
    sequential: Annotated[
        bool, typer.Option(help="Keep only the running model on the device; on a CPU, in memory.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the networks' blocks.")] = False,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """Times each stage."""
    sizes = [_size_of(text) for text in size or ["128x128"]]
    began = time.perf_counter()
    upscaler = Upscaler.load(weights, device, dtype, sequential=sequential, compiled=compiled)
    loading = time.perf_counter() - began
    root, on, ours_dtype = upscaler.weights.root, upscaler.device, upscaler.dtype
    options = Options.make(scale=scale, steps=steps, seed=0)
    results = {one: [_ours(upscaler, one, options, repeat)] for one in sizes}
    name = upscaler.weights.name
    del upscaler
    dtypes = [ours_dtype]
    if baseline:
        stock = torch.float16 if on.type == "cuda" else torch.float32
        dtypes += [stock] if ours_dtype == stock else [stock, ours_dtype]
        for kind in dtypes[1:]:
            free_memory(on)
            published = Published(root, on, kind)
            for one in sizes:
                results[one].append(published.measure(one, scale, steps, repeat))
            del published
            gc.collect()
    peaks = {kind: matmul_peak(on, kind) for kind in {*dtypes, torch.float32}}
    record = {
        "weights": name,
        "device": str(on),
        "threads": torch.get_num_threads(),
        "steps": steps,
        "loading_seconds": loading,
        "startup_seconds": startup_seconds(),
        "matmul_gflop_s": {dtype_name(kind): value / 1e9 for kind, value in peaks.items()},
        "sizes": {
            f"{width}x{height}": {one.name: one.record(peaks) for one in measured}
            for (width, height), measured in results.items()
        },
    }
    if as_json:
        print(json.dumps(record))
        return
    console = Console(width=120)
    for (width, height), measured in results.items():
        console.print(_table(f"{width}x{height} by {scale:g}, steps: {steps}", measured, peaks))
    speeds = ", ".join(f"{kind} {value:.0f}" for kind, value in record["matmul_gflop_s"].items())
    console.print(f"{name}, {on}, {torch.get_num_threads()} threads, loaded in {loading:.1f} s; matmul GFLOP/s: {speeds}")
    console.print(f"start-up beyond the libraries' imports, embedded model: {record['startup_seconds']:.2f} s")


def _size_of(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise typer.BadParameter(f"size is {text!r}; write it like 128x96.") from None
    return width, height


def _ours(upscaler: Upscaler, size: tuple[int, int], options: Options, repeat: int) -> Measured:
    picture = Image.effect_noise(size, 64).convert("RGB")
    with FlopCounterMode(display=False) as counter:
        upscaler.upscale(picture, options)
    peak, runs = PeakMemory(upscaler.device), []
    for _ in range(repeat):
        upscaler.clear_caches()
        runs.append(upscaler.upscale(picture, options).seconds)
    return Measured(
        "seesr", upscaler.dtype, min(runs, key=lambda run: sum(run.values())), flop_by_stage(counter), peak.bytes()
    )


class Published:
    """The stock networks, as the published code runs them."""

    def __init__(self, root: Any, device: torch.device, dtype: torch.dtype) -> None:
        base = root / "sd-turbo"
        self.device, self.dtype = device, dtype
        self.vae, self.denoiser = load_vae(base / "vae", dtype).to(device), load_denoiser(root, dtype).to(device)
        self.text, self.ram = load_prompt_encoder(base, dtype).to(device), load_ram(root / "ram", dtype=dtype).to(device)
        self.schedule = NoiseSchedule.from_config(read_config(base / "scheduler" / "scheduler_config.json"))

    def measure(self, size: tuple[int, int], scale: float, steps: int, repeat: int) -> Measured:
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                self.run(size, scale, steps)
            peak = PeakMemory(self.device)
            runs = [self.run(size, scale, steps) for _ in range(repeat)]
        name = "published" if self.dtype != torch.bfloat16 else "published in bfloat16"
        best = min(runs, key=lambda run: sum(run.values()))
        return Measured(name, self.dtype, best, flop_by_stage(counter), peak.bytes())

    def run(self, size: tuple[int, int], scale: float, steps: int) -> dict[str, float]:
        """Seconds of each stage."""
        seconds: dict[str, float] = {}
        width, height = (round(side * scale) // 8 * 8 for side in size)

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            self._wait()
            began = time.perf_counter()
            made = work()
            self._wait()
            seconds[stage] = time.perf_counter() - began
            return made

        image = torch.rand(1, 3, height, width, device=self.device, dtype=self.dtype)
        side = self.ram.config.image_size
        seen = torch.rand(1, 3, side, side, device=self.device, dtype=self.dtype)
        tokens, _ = timed("tags", lambda: self.ram(seen))
        embeds = timed("prompt", lambda: self.text([PROMPT]))
        latents = timed("encode", lambda: self.vae.encode(2 * image - 1).latent_dist.mode())
        noisy = self.schedule.add_noise(latents.float(), torch.randn(latents.shape).to(self.device), 999)

        def predict(latents: Tensor, timestep: int) -> Tensor:
            return self.denoiser(latents.to(self.dtype), timestep, image, embeds, tokens).float()

        made = timed("denoise", lambda: sample(predict, self.schedule, noisy, steps))
        timed("pixels", lambda: self.vae.decode(made.to(self.dtype)).sample)
        return seconds

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def startup_seconds() -> float:
    """Of a process of its own, the fastest of three."""
    command = [sys.executable, "-c", STARTUP]
    return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3))


def flop_by_stage(counter: FlopCounterMode) -> dict[str, int]:
    counts = counter.get_flop_counts()
    return {stage: sum(sum(counts.get(module, {}).values()) for module in modules) for stage, modules in NETWORKS.items()}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the best of some square matrix products."""
    side = MATMUL_SIDE if device.type == "cpu" else 4 * MATMUL_SIDE
    matrix, best = torch.randn(side, side, device=device).to(dtype), float("inf")
    for _ in range(8):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _table(title: str, measured: list[Measured], peaks: dict[torch.dtype, float]) -> Table:
    ours = measured[0]
    table = Table(
        "stage", *(f"{one.name}\n{dtype_name(one.dtype)}" for one in measured), "TFLOP", "GFLOP/s", "of peak", title=title
    )
    for stage, seconds in ours.seconds.items():
        flop = ours.flop.get(stage, 0)
        cells = [f"{one.seconds[stage]:.2f} s" if stage in one.seconds else "" for one in measured]
        rates = [f"{flop / 1e12:.3f}", f"{flop / seconds / 1e9:.0f}", f"{flop / seconds / peaks[ours.dtype]:.0%}"]
        table.add_row(stage, *cells, *(rates if flop else ["", "", ""]))
    table.add_section()
    table.add_row("sum", *(f"{one.total:.2f} s" for one in measured), f"{sum(ours.flop.values()) / 1e12:.3f}", "", "")
    table.add_row("times ours", *(f"{one.total / ours.total:.2f}" for one in measured), "", "", "")
    table.add_row("peak memory", *(f"{one.peak / 1e9:.2f} GB" for one in measured), "", "", "")
    return table


if __name__ == "__main__":
    typer.run(main)
