"""What was measured of one contender for one size, and the figures that follow from it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import torch

from seesr.machine.device import dtype_name


@dataclass
class Measurement:
    """One contender, one size, all turns."""

    name: str
    dtype: torch.dtype
    turns: list[dict[str, float]] = field(default_factory=list)
    """Seconds of each turn, by stage; of ours also the rest, between and after them."""
    plans: list[str] = field(default_factory=list)
    """Of each turn: its memory plan, and what else was said."""
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

    def times(self, other: Measurement) -> float:
        """How many times as long as `other` it took: the median of the turns, in each of which one followed the other."""
        pairs = zip(self.turns, other.turns, strict=True)
        return statistics.median(sum(mine.values()) / sum(others.values()) for mine, others in pairs)

    def ratios(self, ours: Measurement) -> dict[str, float | None]:
        """How many times as long as `ours` it took: by the fastest stages, and by the median turn."""
        if ours.missing:
            return {"times_ours": None, "median_turn": None}
        return {"times_ours": self.total / ours.total, "median_turn": self.times(ours)}

    def rates(self, stage: str) -> dict[str, float]:
        """A stage's operations, thousand millions of them a second, and the share of what matrix products reach."""
        if stage not in self.flop:
            return {}
        flop, seconds = self.flop[stage], self.seconds[stage]
        return {"flop": flop, "gflop_s": flop / seconds / 1e9, "share": flop / seconds / self.rate}

    def record(self, ours: Measurement) -> dict[str, Any]:
        """Everything, and how many times as long as `ours` it took, ready for JSON."""
        if self.missing:
            return {"dtype": dtype_name(self.dtype), "missing": self.missing}
        stages = {stage: {"seconds": seconds, **self.rates(stage)} for stage, seconds in self.seconds.items()}
        return {
            "dtype": dtype_name(self.dtype),
            "seconds": self.total,
            "turns": [sum(turn.values()) for turn in self.turns],
            **self.ratios(ours),
            "ways": self.plans,
            "flop": sum(self.flop.values()) if self.flop else None,
            "peak_bytes": max(self.peaks, default=None),
            "stages": stages,
        }
