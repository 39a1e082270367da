"""Where a picture's time goes: `scripts/start_seesr.sh benchmark --size 128x128 --size 256x192`.

For each stage on the way: seconds, operations (of matrix products, convolutions and attention), operations a second and the
share of what this machine's matrix products reach in the same precision (on CUDA PyTorch computes float32 convolutions in
less, so that their share can pass 1); and beside them the baseline, what the published code does: stock modules in float32
(float16 on CUDA), contiguous, whole, without margins. Pictures are noise: time does not depend on what is in them.

The row `rest` is what a picture costs outside all stages: the plan, and memory that is given back.

Compare figures of one run only. A machine's speed changes from minute to minute, so each is timed in turns: seconds are the
fastest of each stage; ratios are those of these, and the median of the turns'.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import platform
import re
import statistics
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
from seesr.errors import OptionError, OutOfMemoryError
from seesr.flags import Dtype, MemoryLimit, Weights
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
    turns: list[dict[str, float]] = field(default_factory=list)
    """Seconds of each turn, by stage; of ours also the rest, between and after them."""
    ways: list[str] = field(default_factory=list)
    """Of each turn: how it went through the memory, and what else was said."""
    peaks: list[int] = field(default_factory=list)
    """Bytes, of each turn, where they can be had."""
    flop: dict[str, int] = field(default_factory=dict)
    """By stage; empty if memory ran out while they were counted."""
    rate: float = 0.0
    """Operations a second of matrix products of this precision, the best of all turns, sizes and contenders."""
    missing: str = ""
    """Why nothing was measured."""

    @property
    def seconds(self) -> dict[str, float]:
        """By stage, the fastest of all turns."""
        return {stage: min(turn[stage] for turn in self.turns) for stage in (self.turns or [{}])[0]}

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def times(self, other: Measured) -> float:
        """How many times as long as `other` it took: the median of the turns, in each of which one followed the other."""
        pairs = zip(self.turns, other.turns, strict=True)
        return statistics.median(sum(mine.values()) / sum(others.values()) for mine, others in pairs)

    def ratios(self, ours: Measured) -> dict[str, float | None]:
        """How many times as long as `ours` it took: by the fastest stages, and by the median turn."""
        if ours.missing:
            return {"times_ours": None, "median_turn": None}
        return {"times_ours": self.total / ours.total, "median_turn": self.times(ours)}

    def record(self, ours: Measured) -> dict[str, Any]:
        """Everything, and how many times as long as `ours` it took."""
        if self.missing:
            return {"dtype": dtype_name(self.dtype), "missing": self.missing}
        stages = {stage: {"seconds": seconds, **self.rates(stage)} for stage, seconds in self.seconds.items()}
        return {
            "dtype": dtype_name(self.dtype),
            "seconds": self.total,
            "turns": [sum(turn.values()) for turn in self.turns],
            **self.ratios(ours),
            "ways": self.ways,
            "flop": sum(self.flop.values()) if self.flop else None,
            "peak_bytes": max(self.peaks, default=None),
            "stages": stages,
        }

    def rates(self, stage: str) -> dict[str, float]:
        """A stage's operations, thousand millions of them a second, and the share of what matrix products reach."""
        if stage not in self.flop:
            return {}
        flop, seconds = self.flop[stage], self.seconds[stage]
        return {"flop": flop, "gflop_s": flop / seconds / 1e9, "share": flop / seconds / self.rate}


@dataclass
class Report:
    """Everything measured on one device."""

    weights: str
    device: torch.device
    options: Options
    memory_limit: int | None
    """Bytes."""
    loading: float
    """Seconds."""
    sizes: dict[Size, list[Measured]]
    """By input size, ours first."""

    @property
    def matmul_gflop_s(self) -> dict[str, float]:
        """What matrix products reach, the best of all turns, by dtype."""
        return {dtype_name(one.dtype): one.rate / 1e9 for one in itertools.chain(*self.sizes.values()) if one.rate}

    def record(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "device": str(self.device),
            "processor": processor(self.device),
            "threads": torch.get_num_threads(),
            "steps": self.options.steps,
            "memory_limit": self.memory_limit,
            "loading_seconds": self.loading,
            "startup_seconds": startup_seconds(),
            "matmul_gflop_s": self.matmul_gflop_s,
            "sizes": {
                f"{width}x{height}": {one.name: one.record(measured[0]) for one in measured}
                for (width, height), measured in self.sizes.items()
            },
        }

    def show(self, console: Console) -> None:
        for (width, height), measured in self.sizes.items():
            title = f"{width}x{height} by {self.options.scale:g}, steps: {self.options.steps}, {self.device}"
            console.print(as_table(title, measured))
            for one in measured:
                said = f"{one.name} ({dtype_name(one.dtype)})"
                if one.missing:
                    console.print(f"{said} is left out: {one.missing}.", soft_wrap=True)
                elif {*one.ways} != {"whole"}:
                    console.print(f"{said} went, turn by turn: {'; '.join(one.ways)}.", soft_wrap=True)
        speeds = ", ".join(f"{name} {value:.0f}" for name, value in self.matmul_gflop_s.items())
        on = f"{self.device} ({processor(self.device)}, {torch.get_num_threads()} threads)"
        console.print(f"{self.weights}, loaded in {self.loading:.1f} s, on {on}; matmul GFLOP/s: {speeds}", soft_wrap=True)
        console.print(f"start-up beyond the libraries' imports, embedded model: {startup_seconds():.2f} s")


def main(
    size: Annotated[list[str] | None, typer.Option(metavar="WxH", help="Input size; several are timed in turn.")] = None,
    scale: Annotated[float, typer.Option(help=Options.describe("scale"))] = 4.0,
    steps: Annotated[int, typer.Option(help="Denoising steps, 1 to 4.")] = 1,
    repeat: Annotated[
        int, typer.Option(min=1, help="Turns: in each, all are loaded, warmed up by one run and timed in another.")
    ] = 2,
    baseline: Annotated[bool, typer.Option(help="Time the stock modules too; takes long on a CPU.")] = True,
    sequential: Annotated[
        bool, typer.Option(help="Keep only the running model on the device; on a CPU, in memory.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the networks' blocks.")] = False,
    weights: Weights = None,
    memory_limit: MemoryLimit = None,
    device: Annotated[
        list[str] | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; several are measured in turn.")
    ] = None,
    dtype: Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each device.")] = False,
) -> None:
    """Time each stage, on pictures of noise, beside what the published code does.

    Time does not depend on what weights say. Random ones of the full model's size, for --weights FOLDER, are made by

    scripts/start_seesr.sh python scripts/make_random_weights.py FOLDER
    """
    sizes = list(dict.fromkeys(_size_of(text) for text in size or ["128x128"]))
    options = Options.make(scale=scale, steps=steps, seed=0)
    for on in dict.fromkeys([choose_device(name) for name in device or ["auto"]]):
        load = functools.partial(
            Upscaler.load, weights, str(on), dtype, memory_limit=memory_limit, sequential=sequential, compiled=compiled
        )
        began = time.perf_counter()
        upscaler = load()
        loading, name, root, own = time.perf_counter() - began, upscaler.weights.name, upscaler.weights.root, upscaler.dtype
        plans = [plan_sizes(one, scale, None, upscaler.models.needs, upscaler.limits) for one in sizes]
        del upscaler
        contenders = [Contender("seesr", own, lambda load=load: Ours(load(), options), enlarges=True)]
        if baseline:
            contenders += [published(root, on, kind, steps) for kind in dict.fromkeys([own, stock_dtype(on)])]
        measured = contend(contenders, on, plans, repeat)
        report = Report(name, on, options, memory_limit, loading, dict(zip(sizes, measured, strict=True)))
        if as_json:
            print(json.dumps(report.record()), flush=True)
        else:
            report.show(Console(width=120))


def _size_of(text: str) -> Size:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise OptionError(f"size is {text!r}; write it like 128x96.")
    width, height = map(int, text.split("x"))
    return width, height


@dataclass(frozen=True)
class Contender:
    """One way of doing it."""

    name: str
    dtype: torch.dtype
    load: Callable[[], Callable[[Sizes, Stages], str]]
    """Loads its networks; what it returns makes one picture of a plan's size, and says which way it took."""
    enlarges: bool
    """Whether it makes results that are worked on larger than they are."""


def contend(contenders: list[Contender], device: torch.device, plans: list[Sizes], turns: int) -> list[list[Measured]]:
    """What each contender takes for each plan, plan by plan.

    They are timed in turns, each loaded anew, for all together may not fit into memory, and a machine whose speed changes
    while the benchmark lasts would favour one of them.
    """
    columns = [[Measured(one.name, one.dtype, missing=_left_out(one, plan)) for plan in plans] for one in contenders]
    for turn in range(turns):
        for contender, column in zip(contenders, columns, strict=True):
            _take_turn(contender, column, device, plans, last=turn == turns - 1)
            free_memory(device)
    for one in (measured := [*itertools.chain(*columns)]):
        one.rate = max(other.rate for other in measured if other.dtype == one.dtype)
    return [list(found) for found in zip(*columns, strict=True)]


def _take_turn(contender: Contender, column: list[Measured], device: torch.device, plans: list[Sizes], last: bool) -> None:
    loaded = functools.cache(contender.load)
    for sizes, measured in zip(plans, column, strict=True):
        if measured.missing:
            continue
        free_memory(device)
        run = functools.partial(_run, loaded, sizes)
        if not fits(functools.partial(measure, measured, device, run)):
            measured.missing = "memory ran out"
            measured.turns.clear()
        elif last and not fits(functools.partial(count, measured, run)):
            measured.flop = {}


def _run(load: Callable[[], Callable[[Sizes, Stages], str]], sizes: Sizes, stages: Stages) -> str:
    return load()(sizes, stages)


def fits(work: Callable[[], None]) -> bool:
    """Does `work`; whether memory sufficed."""
    try:
        work()
    except (OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
            raise
        return False
    return True


def _left_out(contender: Contender, sizes: Sizes) -> str:
    if contender.enlarges or sizes.working == sizes.output:
        return ""
    (width, height), (wide, high) = sizes.output, sizes.working
    return f"a {width}x{height} result is below the models' smallest side, so seesr works on {wide}x{high}"


class Ours:
    """The product as it is."""

    def __init__(self, upscaler: Upscaler, options: Options) -> None:
        self.upscaler, self.options = upscaler, options

    def __call__(self, sizes: Sizes, stages: Stages) -> str:
        self.upscaler.clear_caches()
        picture = Image.effect_noise(sizes.input, 64).convert("RGB")
        began = time.perf_counter()
        with patch("seesr.upscaler.Stages", lambda: stages):
            result = self.upscaler.upscale(picture, self.options)
        stages.seconds["rest"] = time.perf_counter() - began - sum(stages.seconds.values())
        failed = [f"{attempt.rung} having run out of memory" for attempt in result.attempts]
        return ", ".join([result.rung, *failed, *result.notes])


def stock_dtype(on: torch.device) -> torch.dtype:
    return torch.float16 if on.type == "cuda" else torch.float32


def published(root: Path, on: torch.device, dtype: torch.dtype, steps: int) -> Contender:
    name = "published" if dtype == stock_dtype(on) else f"published in {dtype_name(dtype)}"
    return Contender(name, dtype, lambda: Published(root, on, dtype, steps), enlarges=False)


class Published:
    """The stock networks, as the published code runs them."""

    def __init__(self, root: Path, device: torch.device, dtype: torch.dtype, steps: int) -> None:
        base = root / "sd-turbo"
        self.device, self.dtype, self.steps = device, dtype, steps
        self.vae, self.denoiser = load_vae(base / "vae", dtype).to(device), load_denoiser(root, dtype).to(device)
        self.text, self.ram = load_prompt_encoder(base, dtype).to(device), load_ram(root / "ram", dtype=dtype).to(device)
        self.schedule = NoiseSchedule.from_config(read_config(base / "scheduler" / "scheduler_config.json"))

    @torch.inference_mode()
    def __call__(self, sizes: Sizes, stages: Stages) -> str:
        width, height = (side // 8 * 8 for side in sizes.output)

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            with stages.stage(stage):
                return work()

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

        made = timed("denoise", lambda: sample(predict, self.schedule, noisy, self.steps))
        timed("pixels", lambda: self.vae.decode(made.to(self.dtype)).sample)
        return "whole"


def plain_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | float = 0.0) -> Tensor:
    """As the published RAM computes it: two products with a softmax between them, each by itself."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + attn_mask
    return scores.softmax(dim=-1) @ value


def measure(measured: Measured, device: torch.device, run: Callable[[Stages], str]) -> None:
    """Times one run after one to warm up, and what matrix products reach then."""
    run(Stages())
    peak, stages = PeakMemory(device), TimedStages(device)
    measured.ways.append(run(stages))
    if peak.resets:
        measured.peaks.append(peak.bytes())
    measured.turns.append(stages.seconds)
    measured.rate = max(measured.rate, matmul_peak(device, measured.dtype))


def count(measured: Measured, run: Callable[[Stages], str]) -> None:
    """Counts the operations of one more run.

    To be called last, and not compiled: compiled code hides its operations, and what Dynamo meets while they are counted it
    never compiles again.
    """
    with torch.compiler.set_stance("force_eager"), counting() as counter:
        counted = CountedStages(counter)
        run(counted)
    measured.flop = counted.flop


class TimedStages(Stages):
    """Waits for the device where a stage begins and ends, so that each has its own seconds."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[Note]:
        self._wait()
        with super().stage(name) as note:
            yield note
            self._wait()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


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
    """A counter that knows the attention of CPUs too, and products that give another precision; not xformers' attention."""

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
        return sdpa_flop_count(query, key, value)

    def products(first: torch.Size, second: torch.Size, *_: object, **__: object) -> int:
        return 2 * math.prod(first) * second[-1]

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={kernel: attention, torch.ops.aten.bmm: products})


@functools.cache
def startup_seconds(runs: int = 3) -> float:
    """Of a process of its own, the fastest of `runs`."""
    command = [sys.executable, "-c", STARTUP]
    return min(float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) for _ in range(runs))


def processor(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.cpu.get_capabilities().get("cpu_name", platform.processor()) if device.type == "cpu" else device.type


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the best of some square matrix products, large ones and such as fit into caches."""
    side, best = MATMUL_SIDE if device.type == "cpu" else 4 * MATMUL_SIDE, 0.0
    for size in (side, side // 2, side // 4):
        matrix = torch.randn(size, size, device=device).to(dtype)
        for _ in range(8):
            began = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def as_table(title: str, measured: list[Measured]) -> Table:
    ours = measured[0]
    table = Table(
        "stage", *(f"{one.name}\n{dtype_name(one.dtype)}" for one in measured), "TFLOP", "GFLOP/s", "of peak", title=title
    )

    def add(name: str, text: Callable[[Measured], str], *rates: str) -> None:
        table.add_row(name, *("" if one.missing else text(one) for one in measured), *rates)

    for stage in dict.fromkeys(stage for one in measured for stage in one.seconds):
        cells = [f"{one.seconds[stage]:.2f} s" if stage in one.seconds else "" for one in measured]
        rates = ours.rates(stage)
        if rates.get("flop"):
            cells += [f"{rates['flop'] / 1e12:.3f}", f"{rates['gflop_s']:.0f}", f"{rates['share']:.0%}"]
        table.add_row(stage, *cells)
    table.add_section()
    add("sum", lambda one: f"{one.total:.2f} s", *([f"{sum(ours.flop.values()) / 1e12:.3f}"] if ours.flop else []))
    for name in ("times_ours", "median_turn"):
        add(name.replace("_", " "), lambda one, name=name: "" if ours.missing else f"{one.ratios(ours)[name]:.2f}")
    add("peak memory", lambda one: f"{max(one.peaks) / 1e9:.2f} GB" if one.peaks else "")
    return table


def run() -> None:
    """Entry point: as a command beside those of `seesr`, whose errors are one sentence."""
    cli.app.command("benchmark")(main)
    sys.argv = ["start_seesr.sh", "benchmark", *sys.argv[1:]]
    cli.main()


if __name__ == "__main__":
    run()
