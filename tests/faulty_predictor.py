"""The real Predictor in which a stage runs out of memory, as often as a file says."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from predict import Predictor as RealPredictor
from seesr.runtime.stages import Note, Stages


class Predictor(RealPredictor):
    """Reads `SEESR_TEST_FAULT` before each stage: the name of one, and how many more of its runs fail."""

    def setup(self) -> None:
        plan, stage = Path(os.environ["SEESR_TEST_FAULT"]), Stages.stage

        @contextmanager
        def failing(self: Stages, name: str) -> Iterator[Note]:
            with stage(self, name) as note:
                wanted, left = plan.read_text().split() if plan.exists() else ("", "0")
                if name == wanted and int(left):
                    plan.write_text(f"{wanted} {int(left) - 1}")
                    raise torch.OutOfMemoryError(f"injected in {name}")
                yield note

        Stages.stage = failing
        super().setup()
