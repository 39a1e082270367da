"""What was measured of one contender for one size, and the figures that follow from it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import torch

from seesr.machine.device import dtype_name


@dataclass
class Measurement:
    """One contender, one size, all rounds; in each round all contenders are timed one after the other."""

    name: str
    dtype: torch.dtype
    rounds: list[dict[str, float]] = field(default_factory=list)
    """Seconds of each round, by stage; SeeSR's own `rest` is the time outside its stages."""
    plans: list[str] = field(default_factory=list)
    """Memory plan and notes of each round."""
    peaks: list[int] = field(default_factory=list)
    """Bytes, of each round, where they can be had."""
    flop: dict[str, int] = field(default_factory=dict)
    """By stage; empty if memory ran out while they were counted."""
    matmul_rate: float = 0.0
    """Operations a second of matrix products of this precision, the best of all rounds, sizes and contenders."""
    missing: str = ""
    """Why nothing was measured."""

    @property
    def seconds(self) -> dict[str, float]:
        """By stage, the fastest of all rounds."""
        return {stage: min(round[stage] for round in self.rounds) for stage in (self.rounds or [{}])[0]}

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def median_ratio_to(self, other: Measurement) -> float:
        """How many times as long as `other` it took: the median of the rounds."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(sum(mine.values()) / sum(others.values()) for mine, others in pairs)

    def ratios(self, ours: Measurement) -> dict[str, float | None]:
        """How many times as long as `ours` it took: by the fastest stages, and by the median ratio."""
        if ours.missing:
            return {"times_ours": None, "median_ratio": None}
        return {"times_ours": self.total / ours.total, "median_ratio": self.median_ratio_to(ours)}

    def stage_rates(self, stage: str) -> dict[str, float]:
        """A stage's operations, 10^9 operations a second, and share of `matmul_rate`; empty if they were not counted."""
        if stage not in self.flop:
            return {}
        flop, seconds = self.flop[stage], self.seconds[stage]
        return {"flop": flop, "gflop_s": flop / seconds / 1e9, "share": flop / seconds / self.matmul_rate}

    def record(self, ours: Measurement) -> dict[str, Any]:
        """Everything, and how many times as long as `ours` it took, ready for JSON."""
        if self.missing:
            return {"dtype": dtype_name(self.dtype), "missing": self.missing}
        stages = {stage: {"seconds": seconds, **self.stage_rates(stage)} for stage, seconds in self.seconds.items()}
        return {
            "dtype": dtype_name(self.dtype),
            "seconds": self.total,
            "rounds": [sum(round.values()) for round in self.rounds],
            **self.ratios(ours),
            "plans": self.plans,
            "flop": sum(self.flop.values()) if self.flop else None,
            "peak_bytes": max(self.peaks, default=None),
            "stages": stages,
        }
