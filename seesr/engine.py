"""Runs jobs on loaded networks, one at a time: device and precision, memory plan and fallback, heap, deadline."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from seesr.components import Components, NetworkSpec
from seesr.errors import Attempt, OutOfMemoryError, TimeLimitError
from seesr.machine.allocator import retain_heap
from seesr.machine.device import choose_device, choose_dtype, dtype_name, supported_dtype
from seesr.machine.memory import PeakMemory, memory_bytes, release_memory
from seesr.machine.out_of_memory import oom_as
from seesr.options import Limits
from seesr.planning.costs import CostModel
from seesr.planning.fallback import run_with_fallback
from seesr.planning.ladder import budget_for, build_ladder, can_retain_heap, max_batch
from seesr.planning.plan import Budget, MemoryPlan, Workload
from seesr.stages import Progress, Stages

logger = logging.getLogger("seesr")

GPU_BATCH = 8
"""Pictures in one pass on a GPU. Assumed: not measured yet."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class Deadline:
    """The moment at which a job has taken too long; `spent` seconds were used before it was made."""

    def __init__(self, seconds: float, pictures: int, spent: float, clock: Callable[[], float]) -> None:
        self.seconds, self.clock = seconds, clock
        self.end = clock() - spent + seconds * pictures

    def check(self) -> None:
        """Raises TimeLimitError once it is over."""
        if self.clock() > self.end:
            raise TimeLimitError(
                f"it took longer than {self.seconds} seconds a picture, which is all that is allowed here (SEESR_SECONDS); "
                "ask for a smaller picture or fewer steps."
            )

    def checked(self, progress: Progress | None) -> Progress:
        """Reports progress, and looks at the time whenever it does."""

        def report(stage: str, done: int, total: int) -> None:
            self.check()
            if progress is not None:
                progress(stage, done, total)

        return report


@dataclass(frozen=True)
class Execution:
    """How a picture was made, as far as the engine knows."""

    plan: MemoryPlan
    attempts: list[Attempt]
    notes: list[str]
    seconds: dict[str, float]
    dtype: str
    peak_memory: int


class Engine:
    """Networks on one device, and the rules by which jobs run on them.

    PyTorch keeps memory for each thread that ever computed: a server should let one lasting thread call it.

    Args:
        memory_limit: bytes of the device's memory (the machine's, on a CPU) to use at most, weights included.
        budget: what may be used at this moment, of a device and a limit.
        clock: seconds, for deadlines.
        stages: what times and observes the stages of one job.
        ladder: the memory plans for a job, in the order in which they are tried.
        preferred_batch: pictures of one size that are best run in one pass; None takes what is best on the device.
    """

    def __init__(
        self,
        components: Components,
        costs: CostModel,
        dtype: torch.dtype,
        limits: Limits,
        memory_limit: int | None = None,
        budget: Callable[[torch.device, int | None], Budget] = Budget.now,
        clock: Callable[[], float] = time.monotonic,
        stages: Callable[[], Stages] = Stages,
        ladder: Callable[..., list[MemoryPlan]] = build_ladder,
        preferred_batch: int | None = None,
    ) -> None:
        self.components, self.costs, self.dtype, self.limits = components, costs, dtype, limits
        self._own_costs = costs
        self.memory_limit, self.budget, self.clock = memory_limit, budget, clock
        self.stages, self.ladder = stages, ladder
        self.preferred_batch = preferred_batch or (1 if components.device.type == "cpu" else GPU_BATCH)
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        name: str,
        networks: Callable[[torch.dtype], Iterable[NetworkSpec]],
        costs_of: Callable[[Components], CostModel],
        default_dtype: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        limits: Limits | None = None,
        memory_limit: int | None = None,
        sequential: bool = False,
        compiled: bool = False,
    ) -> Engine:
        """Loads the networks of `name`. On a CPU that has no memory for all at once, each is read when it runs.

        Raises:
            WeightsError: files are missing or do not fit.
            OptionError: the device or dtype is not available, or there is no compiler.
            OutOfMemoryError: the networks do not fit.
        """
        chosen = choose_device(device)
        for one_by_one in [False, True] if chosen.type == "cpu" and not sequential else [sequential]:
            memory = 0 if one_by_one else min(memory_bytes(chosen)[1], memory_limit or math.inf)
            precision = choose_dtype(dtype, chosen, default_dtype, memory)
            advice = "Use bfloat16" if one_by_one else "Use sequential, bfloat16"
            try:
                with oom_as(
                    f"memory ran out while the models of {name} were loaded in {dtype_name(precision)}. "
                    f"{advice} or smaller weights, or close other programs."
                ):
                    components = Components(networks(precision), chosen, one_by_one, compiled)
                return cls(components, costs_of(components), precision, limits or Limits.from_environment(), memory_limit)
            except OutOfMemoryError:
                if one_by_one or chosen.type != "cpu":
                    raise
            release_memory(chosen)
            logger.warning("memory does not suffice for all models of %s at once: each is read when it runs", name)
        raise AssertionError("the last attempt returns or raises")

    @property
    def device(self) -> torch.device:
        return self.components.device

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One job at a time."""
        with self._lock, torch.inference_mode():
            yield

    def exchange_extras(self, specs: Iterable[NetworkSpec]) -> None:
        """Holds networks that run together with the UNet, in place of those of the call before; see `Components`.

        The memory plans count their weights. It is called in `exclusive`.

        Raises:
            WeightsError: files are missing or do not fit.
            OutOfMemoryError: they do not fit into memory.
        """
        components, own = self.components, self._own_costs
        try:
            with oom_as("memory ran out while a ControlNet was loaded. Use fewer, or close other programs."):
                components.exchange_extras(specs)
        finally:
            extra = components.nbytes(*components.extras)
            largest = max(own.largest_weight_bytes, components.nbytes("unet") + extra) if extra else own.largest_weight_bytes
            self.costs = replace(own, weight_bytes=own.weight_bytes + extra, largest_weight_bytes=largest)

    def deadline(self, pictures: int, spent: float) -> Deadline:
        """Of a pass of so many pictures, for which `spent` seconds were used already."""
        return Deadline(self.limits.seconds, pictures, spent, self.clock)

    def first_plan(self, work: Workload) -> MemoryPlan:
        """The memory plan with which this work would begin at this moment."""
        return self._ladder(work)[0][0]

    def max_batch(self, work: Workload, most: int) -> int:
        """Pictures, at most `most`, that go through the networks together."""
        if most == 1:
            return 1
        ladder, budget = self._ladder(work)
        return max_batch(ladder[0], work.height, work.width, self.costs, budget, most)

    def run(
        self,
        items: list[Item],
        work: Workload,
        run: Callable[[list[Item], MemoryPlan, Stages], list[Made]],
        stages: Stages,
    ) -> list[tuple[Made, Execution]]:
        """What `run` makes of each item, with the first memory plan that does not run out of memory.

        Several items run together only with the ladder's first plan, else one by one.

        Raises:
            OutOfMemoryError: memory does not suffice with any plan.
        """
        try:
            return self._run_together(items, work, run, stages)
        except OutOfMemoryError as error:
            if len(items) == 1:
                raise
            failed = [replace(attempt, rung=f"{attempt.rung}, {len(items)} pictures") for attempt in error.attempts]
        # Here, where nothing holds what was computed.
        alone = [result for item in items for result in self._run_together([item], work, run, self.stages())]
        return [(made, replace(execution, attempts=[*failed, *execution.attempts])) for made, execution in alone]

    def _run_together(
        self,
        items: list[Item],
        work: Workload,
        run: Callable[[list[Item], MemoryPlan, Stages], list[Made]],
        stages: Stages,
    ) -> list[tuple[Made, Execution]]:
        peak, (ladder, budget) = PeakMemory(self.device), self._ladder(work)
        expected = self.costs.estimate(ladder[0], work.height, work.width, len(items))

        def run_on(plan: MemoryPlan) -> list[Made]:
            with self.components.on(plan):
                return run(items, plan, stages)

        with retain_heap(expected) if can_retain_heap(ladder[0], expected, budget) else nullcontext():
            results, plan, attempts = run_with_fallback(ladder if len(items) == 1 else ladder[:1], run_on)
        notes = []
        if not attempts and self.costs.estimate(plan, work.height, work.width) > budget_for(plan, budget):
            notes.append("no plan fits the memory limit; the smallest one is used")
        dtype = dtype_name(supported_dtype(plan.device, self.dtype))
        execution = Execution(plan, attempts, notes, stages.seconds, dtype, peak.bytes())
        return [(result, execution) for result in results]

    def _ladder(self, work: Workload) -> tuple[list[MemoryPlan], Budget]:
        """The memory plans for this work, and what they may use at this moment."""
        budget, components = self.budget(self.device, self.memory_limit), self.components
        size = work.height, work.width, self.device
        ladder = self.ladder(work.settings, *size, self.costs, budget, components.sequential, components.compiled)
        return ladder, budget
