"""The real Predictor in which a stage, or saving, runs out of memory or meets a defect, as often as a file says."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import predict
from seesr.result import Result
from seesr.stages import StageLog, Stages

DEFECT = "/somewhere/defect"


class Predictor(predict.Predictor):
    """Reads `SEESR_TEST_FAULT` before each stage: the name of one, or of a defect, and how many more of its runs fail."""

    def setup(self) -> None:
        plan, stage, save = Path(os.environ["SEESR_TEST_FAULT"]), Stages.stage, Result.save

        def fail(name: str, error: type[BaseException]) -> None:
            wanted, left = plan.read_text().split() if plan.exists() else ("", "0")
            if name == wanted and int(left):
                plan.write_text(f"{wanted} {int(left) - 1}")
                raise error(f"injected in {name}")

        @contextmanager
        def failing(self: Stages, name: str) -> Iterator[StageLog]:
            with stage(self, name) as note:
                fail(name, MemoryError if name == "read" else torch.OutOfMemoryError)
                if name == "resize":
                    fail(DEFECT, KeyError)
                yield note

        def failing_save(*arguments: Any, **named: Any) -> None:
            fail("save", MemoryError)
            save(*arguments, **named)

        Stages.stage, Result.save = failing, failing_save
        super().setup()
