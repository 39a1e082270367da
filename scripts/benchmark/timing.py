"""Times one run stage by stage, and counts the operations of another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from scripts.benchmark.machine import matmul_peak
from scripts.benchmark.measurement import Measurement
from seesr.machine.memory import PeakMemory
from seesr.stages import StageLog, Stages


def measure(measurement: Measurement, device: torch.device, run: Callable[[Stages], str]) -> None:
    """Times one run after one to warm up, and what matrix products reach then."""
    run(Stages())
    peak, stages = PeakMemory(device), TimedStages(device)
    measurement.plans.append(run(stages))
    if peak.resets:
        measurement.peaks.append(peak.bytes())
    measurement.rounds.append(stages.seconds)
    measurement.matmul_rate = max(measurement.matmul_rate, matmul_peak(device, measurement.dtype))


def count(measurement: Measurement, run: Callable[[Stages], str]) -> None:
    """Counts the operations of one more run.

    To be called last, and not compiled: compiled code hides its operations, and what Dynamo meets while they are counted it
    never compiles again.
    """
    with torch.compiler.set_stance("force_eager"), counting() as counter:
        stages = CountedStages(counter)
        run(stages)
    measurement.flop = stages.flop


class TimedStages(Stages):
    """Waits for the device where a stage begins and ends, so that each has its own seconds."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[StageLog]:
        self._wait()
        with super().stage(name) as log:
            yield log
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
    def stage(self, name: str) -> Iterator[StageLog]:
        before = self.counter.get_total_flops()
        try:
            with super().stage(name) as log:
                yield log
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
