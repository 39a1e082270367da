"""The real Predictor in which a stage, or saving, runs out of memory or meets a defect, as often as a file says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import watching

import predict
from seesr.result import Result

DEFECT = "/somewhere/defect"


class Predictor(predict.Predictor):
    """Reads `SEESR_TEST_FAULT` before each stage: the name of one, or of a defect, and how many more of its runs fail."""

    def setup(self) -> None:
        super().setup()
        plan, save = Path(os.environ["SEESR_TEST_FAULT"]), Result.save

        def fail(name: str, error: type[BaseException]) -> None:
            wanted, left = plan.read_text().split() if plan.exists() else ("", "0")
            if name == wanted and int(left):
                plan.write_text(f"{wanted} {int(left) - 1}")
                raise error(f"injected in {name}")

        def enter(stage: str) -> None:
            fail(stage, MemoryError if stage == "read" else torch.OutOfMemoryError)
            if stage == "resize":
                fail(DEFECT, KeyError)

        def failing_save(*arguments: Any, **named: Any) -> None:
            fail("save", MemoryError)
            save(*arguments, **named)

        self.upscaler.engine.stages, Result.save = watching(enter), failing_save
