"""Who is timed, and the rounds that they take."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from scripts.benchmark.measurement import Measurement
from scripts.benchmark.timing import count, measure
from seesr.errors import OutOfMemoryError
from seesr.images.sizes import Sizes
from seesr.machine.memory import release_memory
from seesr.machine.out_of_memory import is_out_of_memory
from seesr.stages import Stages

Run = Callable[[Sizes, Stages], str]
"""Makes one picture of a size; says by which memory plan, and what else was said."""


@dataclass(frozen=True)
class Contender:
    """The product, or the published code, in one precision."""

    name: str
    dtype: torch.dtype
    load: Callable[[], Run]
    """Loads its networks."""
    enlarges: bool
    """Whether it makes results that are worked on larger than they are."""


def contend(contenders: list[Contender], device: torch.device, sizes: list[Sizes], rounds: int) -> list[list[Measurement]]:
    """What each contender takes for each size, size by size.

    They are timed in rounds, each loaded anew, for all together may not fit into memory, and a machine whose speed changes
    while the benchmark lasts would favour one of them.
    """
    columns = [
        [Measurement(contender.name, contender.dtype, missing=_left_out(contender, each)) for each in sizes]
        for contender in contenders
    ]
    for round in range(rounds):
        for contender, column in zip(contenders, columns, strict=True):
            _time(contender, column, device, sizes, last=round == rounds - 1)
            release_memory(device)
    for measurement in (everything := [*itertools.chain(*columns)]):
        measurement.matmul_rate = max(other.matmul_rate for other in everything if other.dtype == measurement.dtype)
    return [list(row) for row in zip(*columns, strict=True)]


def _time(contender: Contender, column: list[Measurement], device: torch.device, sizes: list[Sizes], last: bool) -> None:
    loaded = functools.cache(contender.load)
    for each, measurement in zip(sizes, column, strict=True):
        if measurement.missing:
            continue
        release_memory(device)
        run = functools.partial(_run, loaded, each)
        if not _fits(functools.partial(measure, measurement, device, run)):
            measurement.missing = "memory ran out"
            measurement.rounds.clear()
        elif last and not _fits(functools.partial(count, measurement, run)):
            measurement.flop = {}


def _run(load: Callable[[], Run], sizes: Sizes, stages: Stages) -> str:
    return load()(sizes, stages)


def _fits(work: Callable[[], None]) -> bool:
    """Does `work`; whether memory sufficed."""
    try:
        work()
    except (OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
            raise
        return False
    return True


def _left_out(contender: Contender, sizes: Sizes) -> str:
    """Why it cannot make a picture of this size; empty if it can."""
    if contender.enlarges or sizes.working == sizes.output:
        return ""
    (width, height), (wide, high) = sizes.output, sizes.working
    return f"a {width}x{height} result is below the models' smallest side, so seesr works on {wide}x{high}"
