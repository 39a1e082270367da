"""Where a picture's time goes: `scripts/start_seesr.sh benchmark --size 128x128 --size 256x192`.

For each stage on the way: seconds, operations (of matrix products, convolutions and attention), operations a second and the
share of what this machine's matrix products reach in the same precision; and beside them the baseline, what the published
code does: stock modules in float32 (float16 on a GPU), contiguous, whole, without margins. Pictures are noise: time does not
depend on what is in them. Compare figures of one run only; a machine's speed changes from hour to hour.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from seesr import Options, Upscaler, cli
from seesr.autoencoder.vae import load_vae
from seesr.diffusion.denoiser import load_denoiser
from seesr.diffusion.sampler import sample
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import load_prompt_encoder
from seesr.errors import OptionError
from seesr.images.resize import Size, Sizes, plan_sizes
from seesr.runtime.device import choose_device, dtype_name
from seesr.runtime.memory import PeakMemory, free_memory, is_out_of_memory
from seesr.runtime.stages import Note, Stages
from seesr.tagging.ram import load_ram
from seesr.weights.files import read_config

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
    seconds: dict[str, float] = field(default_factory=dict)
    """The fastest run's, by stage."""
    flop: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    """Bytes."""
    missing: str = ""
    """Why nothing was measured."""

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def record(self, peaks: dict[torch.dtype, float]) -> dict[str, Any]:
        if self.missing:
            return {"dtype": dtype_name(self.dtype), "missing": self.missing}
        stages = {
            stage: {
                "seconds": seconds,
                "flop": flop,
                "gflop_s": flop / seconds / 1e9,
                "share": flop / seconds / peaks[self.dtype],
            }
            for stage, seconds in self.seconds.items()
            for flop in [self.flop[stage]]
        }
        return {
            "dtype": dtype_name(self.dtype),
            "seconds": self.total,
            "flop": sum(self.flop.values()),
            "peak_bytes": self.peak,
            "stages": stages,
        }


@dataclass
class Report:
    """Everything measured on one device."""

    weights: str
    device: torch.device
    options: Options
    loading: float
    """Seconds."""
    sizes: dict[Size, list[Measured]]
    """By input size, ours first."""
    peaks: dict[torch.dtype, float]
    """Operations a second of matrix products."""

    def record(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "steps": self.options.steps,
            "loading_seconds": self.loading,
            "startup_seconds": startup_seconds(),
            "matmul_gflop_s": {dtype_name(kind): value / 1e9 for kind, value in self.peaks.items()},
            "sizes": {
                f"{width}x{height}": {one.name: one.record(self.peaks) for one in measured}
                for (width, height), measured in self.sizes.items()
            },
        }

    def show(self, console: Console) -> None:
        for (width, height), measured in self.sizes.items():
            title = f"{width}x{height} by {self.options.scale:g}, steps: {self.options.steps}, {self.device}"
            console.print(as_table(title, measured, self.peaks))
            for one in measured:
                if one.missing:
                    console.print(f"{one.name} ({dtype_name(one.dtype)}) is left out: {one.missing}.", soft_wrap=True)
        speeds = ", ".join(f"{dtype_name(kind)} {value / 1e9:.0f}" for kind, value in self.peaks.items())
        threads, loaded = torch.get_num_threads(), f"loaded in {self.loading:.1f} s"
        console.print(f"{self.weights}, {self.device}, {threads} threads, {loaded}; matmul GFLOP/s: {speeds}")
        console.print(f"start-up beyond the libraries' imports, embedded model: {startup_seconds():.2f} s")


def main(
    size: Annotated[list[str] | None, typer.Option(metavar="WxH", help="Input size; several are timed in turn.")] = None,
    scale: Annotated[float, typer.Option(help=Options.describe("scale"))] = 4.0,
    steps: Annotated[int, typer.Option(help="Denoising steps, 1 to 4.")] = 1,
    repeat: Annotated[
        int, typer.Option(min=1, help="Timed runs; one more before them warms up, one after them counts operations.")
    ] = 2,
    baseline: Annotated[bool, typer.Option(help="Time the stock modules too; takes long on a CPU.")] = True,
    sequential: Annotated[
        bool, typer.Option(help="Keep only the running model on the device; on a CPU, in memory.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the networks' blocks.")] = False,
    weights: cli.Weights = None,
    device: Annotated[
        list[str] | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; several are measured in turn.")
    ] = None,
    dtype: cli.Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each device.")] = False,
) -> None:
    """Time each stage, on pictures of noise, beside what the published code does.

    Time does not depend on what weights say. Random ones of the full model's size, for --weights FOLDER, are made by

    scripts/start_seesr.sh python scripts/make_random_weights.py FOLDER
    """
    sizes = list(dict.fromkeys(_size_of(text) for text in size or ["128x128"]))
    options = Options.make(scale=scale, steps=steps, seed=0)
    for on in dict.fromkeys([choose_device(name) for name in device or ["auto"]]):
        began = time.perf_counter()
        upscaler = Upscaler.load(weights, str(on), dtype, sequential=sequential, compiled=compiled)
        loading, name, root, own = time.perf_counter() - began, upscaler.weights.name, upscaler.weights.root, upscaler.dtype
        plans = [plan(upscaler, one, scale) for one in sizes]
        columns = [[ours(upscaler, one, options, repeat) for one in plans]]
        del upscaler
        free_memory(on)
        dtypes = list(dict.fromkeys([stock_dtype(on), own] if baseline else [own]))
        if baseline:
            columns += [published(root, on, kind, plans, steps, repeat) for kind in dtypes]
        peaks = {kind: matmul_peak(on, kind) for kind in dict.fromkeys([*dtypes, torch.float32])}
        by_size = {size: list(measured) for size, *measured in zip(sizes, *columns, strict=True)}
        report = Report(name, on, options, loading, by_size, peaks)
        if as_json:
            print(json.dumps(report.record()), flush=True)
        else:
            report.show(Console(width=120))


def _size_of(text: str) -> Size:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise OptionError(f"size is {text!r}; write it like 128x96.")
    width, height = map(int, text.split("x"))
    return width, height


def plan(upscaler: Upscaler, size: Size, scale: float) -> Sizes:
    return plan_sizes(size, scale, None, upscaler.models.needs, upscaler.limits)


def ours(upscaler: Upscaler, sizes: Sizes, options: Options, repeat: int) -> Measured:
    picture = Image.effect_noise(sizes.input, 64).convert("RGB")

    def run(stages: Stages) -> None:
        upscaler.clear_caches()
        with patch("seesr.upscaler.Stages", lambda: stages):
            upscaler.upscale(picture, options)

    return measure("seesr", upscaler.device, upscaler.dtype, run, repeat)


def stock_dtype(on: torch.device) -> torch.dtype:
    return torch.float16 if on.type == "cuda" else torch.float32


def published(
    root: Path, on: torch.device, dtype: torch.dtype, plans: list[Sizes], steps: int, repeat: int
) -> list[Measured]:
    """The baseline for each size; of those that memory does not suffice for, or that we work on larger, why it is not."""
    name = "published" if dtype == stock_dtype(on) else f"published in {dtype_name(dtype)}"
    networks, made = None, []
    for sizes in plans:
        free_memory(on)
        if sizes.working != sizes.output:
            (width, height), (wide, high) = sizes.output, sizes.working
            reason = f"a {width}x{height} result is below the models' smallest side, so seesr works on {wide}x{high}"
            made.append(Measured(name, dtype, missing=reason))
            continue
        try:
            networks = networks or Published(root, on, dtype)
            run = functools.partial(networks.run, sizes.output, steps)
            made.append(measure(name, on, dtype, run, repeat))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            made.append(Measured(name, dtype, missing="memory ran out"))
    return made


class Published:
    """The stock networks, as the published code runs them."""

    def __init__(self, root: Path, device: torch.device, dtype: torch.dtype) -> None:
        base = root / "sd-turbo"
        self.device, self.dtype = device, dtype
        self.vae, self.denoiser = load_vae(base / "vae", dtype).to(device), load_denoiser(root, dtype).to(device)
        self.text, self.ram = load_prompt_encoder(base, dtype).to(device), load_ram(root / "ram", dtype=dtype).to(device)
        self.schedule = NoiseSchedule.from_config(read_config(base / "scheduler" / "scheduler_config.json"))

    @torch.inference_mode()
    def run(self, size: Size, steps: int, stages: Stages) -> None:
        """Makes a result of `size`."""
        width, height = (side // 8 * 8 for side in size)

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            self._wait()
            with stages.stage(stage):
                made = work()
                self._wait()
            return made

        image = torch.rand(1, 3, height, width, device=self.device, dtype=self.dtype)
        side = self.ram.config.image_size
        seen = torch.rand(1, 3, side, side, device=self.device, dtype=self.dtype)
        with patch("torch.nn.functional.scaled_dot_product_attention", plain_attention):
            tokens, _ = timed("tags", lambda: self.ram(seen))
        embeds = timed("prompt", lambda: self.text([PROMPT]))
        latents = timed("encode", lambda: self.vae.encode(2 * image - 1).latent_dist.mode())
        noisy = self.schedule.add_noise(latents.float(), torch.randn(latents.shape).to(self.device), 999)

        def predict(latents: Tensor, timestep: int) -> Tensor:
            return self.denoiser(latents.to(self.dtype), timestep, image, embeds, tokens).float()

        made = timed("denoise", lambda: sample(predict, self.schedule, noisy, steps))
        timed("pixels", lambda: self.vae.decode(made.to(self.dtype)).sample)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def plain_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | float = 0.0) -> Tensor:
    """As the published RAM computes it: two products with a softmax between them, each by itself."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + attn_mask
    return scores.softmax(dim=-1) @ value


def measure(name: str, device: torch.device, dtype: torch.dtype, run: Callable[[Stages], None], repeat: int) -> Measured:
    """The fastest of `repeat` runs after one to warm up; its operations are counted in one more.

    That comes last, and not compiled: compiled code hides its operations, and what Dynamo meets while they are counted it
    never compiles again.
    """
    run(Stages())
    peak, runs = PeakMemory(device), []
    for _ in range(repeat):
        stages = Stages()
        run(stages)
        runs.append(stages.seconds)
    best, most = min(runs, key=lambda run: sum(run.values())), peak.bytes()
    with torch.compiler.set_stance("force_eager"), counting() as counter:
        counted = CountedStages(counter)
        run(counted)
    return Measured(name, dtype, best, counted.flop, most)


class CountedStages(Stages):
    """Counts operations beside seconds, in tiles too."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.counter, self.flop = counter, Counter[str]()

    @contextmanager
    def stage(self, name: str) -> Iterator[Note]:
        before = self.counter.get_total_flops()
        try:
            with super().stage(name) as note:
                yield note
        finally:
            self.flop[name] += self.counter.get_total_flops() - before


def counting() -> FlopCounterMode:
    """A counter that knows the attention of CPUs too; not that of xformers."""

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
        return sdpa_flop_count(query, key, value)

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={kernel: attention})


@functools.cache
def startup_seconds(runs: int = 3) -> float:
    """Of a process of its own, the fastest of `runs`."""
    command = [sys.executable, "-c", STARTUP]
    return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(runs))


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the best of some square matrix products."""
    side = MATMUL_SIDE if device.type == "cpu" else 4 * MATMUL_SIDE
    matrix, best = torch.randn(side, side, device=device).to(dtype), float("inf")
    for _ in range(8):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def as_table(title: str, measured: list[Measured], peaks: dict[torch.dtype, float]) -> Table:
    ours = measured[0]
    table = Table(
        "stage", *(f"{one.name}\n{dtype_name(one.dtype)}" for one in measured), "TFLOP", "GFLOP/s", "of peak", title=title
    )

    def add(name: str, text: Callable[[Measured], str], *rates: str) -> None:
        table.add_row(name, *("" if one.missing else text(one) for one in measured), *rates)

    for stage, seconds in ours.seconds.items():
        flop = ours.flop[stage]
        cells = [f"{one.seconds[stage]:.2f} s" if stage in one.seconds else "" for one in measured]
        rates = [f"{flop / 1e12:.3f}", f"{flop / seconds / 1e9:.0f}", f"{flop / seconds / peaks[ours.dtype]:.0%}"]
        table.add_row(stage, *cells, *(rates if flop else []))
    table.add_section()
    add("sum", lambda one: f"{one.total:.2f} s", f"{sum(ours.flop.values()) / 1e12:.3f}")
    add("times ours", lambda one: f"{one.total / ours.total:.2f}")
    add("peak memory", lambda one: f"{one.peak / 1e9:.2f} GB")
    return table


def run() -> None:
    """Entry point: as a command beside those of `seesr`, whose errors are one sentence."""
    cli.app.command("benchmark")(main)
    sys.argv = ["start_seesr.sh", "benchmark", *sys.argv[1:]]
    cli.main()


if __name__ == "__main__":
    run()
