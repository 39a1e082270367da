"""All that was measured on one device, as JSON and as tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from scripts.benchmark.machine import processor, startup_seconds
from scripts.benchmark.measurement import Measurement
from seesr import Options
from seesr.images.sizes import Size
from seesr.machine.device import dtype_name


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
    sizes: dict[Size, list[Measurement]]
    """By input size, ours first."""

    @property
    def matmul_gflop_s(self) -> dict[str, float]:
        """What matrix products reach, the best of all rounds, by dtype."""
        measurements = itertools.chain(*self.sizes.values())
        return {dtype_name(each.dtype): each.matmul_rate / 1e9 for each in measurements if each.matmul_rate}

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
                f"{width}x{height}": {each.name: each.record(measurements[0]) for each in measurements}
                for (width, height), measurements in self.sizes.items()
            },
        }

    def show(self, console: Console) -> None:
        for (width, height), measurements in self.sizes.items():
            title = f"{width}x{height} by {self.options.scale:g}, steps: {self.options.steps}, {self.device}"
            console.print(as_table(title, measurements))
            for each in measurements:
                name = f"{each.name} ({dtype_name(each.dtype)})"
                if each.missing:
                    console.print(f"{name} is left out: {each.missing}.", soft_wrap=True)
                elif {*each.plans} != {"whole"}:
                    console.print(f"{name} memory plan by round: {'; '.join(each.plans)}.", soft_wrap=True)
        speeds = ", ".join(f"{name} {value:.0f}" for name, value in self.matmul_gflop_s.items())
        on = f"{self.device} ({processor(self.device)}, {torch.get_num_threads()} threads)"
        console.print(f"{self.weights}, loaded in {self.loading:.1f} s, on {on}; matmul GFLOP/s: {speeds}", soft_wrap=True)
        console.print(f"start-up beyond the libraries' imports, embedded model: {startup_seconds():.2f} s")


def as_table(title: str, measurements: list[Measurement]) -> Table:
    """A row each stage, a column each contender; operations are those of ours, which come first."""
    ours = measurements[0]
    names = [f"{each.name}\n{dtype_name(each.dtype)}" for each in measurements]
    table = Table("stage", *names, "TFLOP", "GFLOP/s", "of peak", title=title)

    def add(name: str, text: Callable[[Measurement], str], *rates: str) -> None:
        table.add_row(name, *("" if each.missing else text(each) for each in measurements), *rates)

    for stage in dict.fromkeys(stage for each in measurements for stage in each.seconds):
        cells = [f"{each.seconds[stage]:.2f} s" if stage in each.seconds else "" for each in measurements]
        rates = ours.stage_rates(stage)
        if rates.get("flop"):
            cells += [f"{rates['flop'] / 1e12:.3f}", f"{rates['gflop_s']:.0f}", f"{rates['share']:.0%}"]
        table.add_row(stage, *cells)
    table.add_section()
    add("sum", lambda each: f"{each.total:.2f} s", *([f"{sum(ours.flop.values()) / 1e12:.3f}"] if ours.flop else []))
    for name in ("times_ours", "median_ratio"):
        add(name.replace("_", " "), lambda each, name=name: "" if ours.missing else f"{each.ratios(ours)[name]:.2f}")
    add("peak memory", lambda each: f"{max(each.peaks) / 1e9:.2f} GB" if each.peaks else "")
    return table
