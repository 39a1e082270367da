"""Where a picture's time goes: `scripts/start_seesr.sh benchmark --size 128x128 --size 256x192`.

For each stage of the pipeline: seconds, operations (of matrix products, convolutions and attention), operations a second
and the share of what this machine's matrix products reach in the same precision (on CUDA PyTorch computes float32
convolutions in less, so that their share can pass 1); and beside them the baseline, what the published code does: stock
modules in float32 (float16 on CUDA), contiguous, whole, without margins. Pictures are noise: time does not depend on what
is in them.

The row `rest` is what a picture costs outside all stages: the memory plan, and memory that is given back.

Compare figures of one run only. A machine's speed changes from minute to minute, so each is timed in rounds: seconds are the
fastest of each stage; ratios are those of these, and the median of the rounds'.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from scripts.benchmark.contenders import Contender, contend
from scripts.benchmark.ours import Ours
from scripts.benchmark.published import published, stock_dtype
from scripts.benchmark.report import Report
from seesr import Options, Upscaler
from seesr.cli.flags import DtypeFlag, MemoryLimitFlag, WeightsFlag
from seesr.errors import OptionError
from seesr.images.sizes import Size, plan_sizes
from seesr.machine.device import choose_device


def benchmark(
    size: Annotated[list[str] | None, typer.Option(metavar="WxH", help="Input size; several are timed one by one.")] = None,
    scale: Annotated[float, typer.Option(help=Options.describe("scale"))] = 4.0,
    steps: Annotated[int, typer.Option(help="Denoising steps, 1 to 4.")] = 1,
    repeat: Annotated[
        int, typer.Option(min=1, help="Rounds: in each, all are loaded, warmed up by one run and timed in another.")
    ] = 2,
    baseline: Annotated[bool, typer.Option(help="Time the stock modules too; takes long on a CPU.")] = True,
    sequential: Annotated[
        bool, typer.Option(help="Keep only the running model on the device; on a CPU, in memory.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the networks' blocks.")] = False,
    weights: WeightsFlag = None,
    memory_limit: MemoryLimitFlag = None,
    device: Annotated[
        list[str] | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; several are measured one after the other.")
    ] = None,
    dtype: DtypeFlag = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each device.")] = False,
) -> None:
    """Time each stage, on pictures of noise, beside what the published code does.

    Time does not depend on what weights say. Random ones of the full model's size, for --weights FOLDER, are made by

    scripts/start_seesr.sh python scripts/make_random_weights.py FOLDER
    """
    inputs = list(dict.fromkeys(_size_of(text) for text in size or ["128x128"]))
    options = Options.make(scale=scale, steps=steps, seed=0)
    load = functools.partial(
        Upscaler.load, weights, dtype=dtype, memory_limit=memory_limit, sequential=sequential, compiled=compiled
    )
    for chosen in dict.fromkeys([choose_device(name) for name in device or ["auto"]]):
        report = _measure(functools.partial(load, device=str(chosen)), inputs, options, memory_limit, repeat, baseline)
        if as_json:
            print(json.dumps(report.record()), flush=True)
        else:
            report.show(Console(width=120))


def _measure(
    load: Callable[[], Upscaler],
    inputs: list[Size],
    options: Options,
    memory_limit: int | None,
    rounds: int,
    baseline: bool,
) -> Report:
    """Everything on the one device for which `load` loads."""
    began = time.perf_counter()
    upscaler = load()
    loading = time.perf_counter() - began
    weights, device, dtype = upscaler.weights, upscaler.engine.device, upscaler.engine.dtype
    requirements, limits = upscaler.networks.size_requirements, upscaler.engine.limits
    sizes = [plan_sizes(each, options.scale, None, requirements, limits) for each in inputs]
    del upscaler
    contenders = [Contender("seesr", dtype, lambda: Ours(load(), options), enlarges=True)]
    if baseline:
        assert options.steps is not None
        precisions = dict.fromkeys([dtype, stock_dtype(device)])
        contenders += [published(weights.root, device, precision, options.steps) for precision in precisions]
    measurements = contend(contenders, device, sizes, rounds)
    by_input = dict(zip(inputs, measurements, strict=True))
    return Report(weights.name, device, options, memory_limit, loading, by_input)


def _size_of(text: str) -> Size:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise OptionError(f"size is {text!r}; write it like 128x96.")
    width, height = map(int, text.split("x"))
    return width, height
