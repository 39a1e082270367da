"""A studio in a temporary folder, with workers without models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stand_in_worker import StandInWorker

from seesr.studio.limits import OperatorLimits
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio


@pytest.fixture
def open_studio(tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """Opens the studio of `tmp_path`; what is open in the end is closed."""
    studios = list[Studio]()

    def build(*workers: StandInWorker, **limits: float) -> Studio:
        settings = StudioSettings(limits=OperatorLimits(**limits))
        named = {f"cpu:{number}": worker for number, worker in enumerate(workers or [StandInWorker()])}
        studios.append(Studio.open(tmp_path / "data", settings, named))
        return studios[-1]

    yield build
    for studio in studios:
        studio.close()
