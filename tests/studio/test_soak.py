"""The long run: 500 mixed jobs."""

from __future__ import annotations

import pytest

from scripts import soak_studio


@pytest.mark.long
def test_memory_stays_as_it_is_from_the_100th_to_the_500th_job() -> None:
    growth = soak_studio.main(["--jobs", "500"])
    assert growth["server"] < 30
    assert growth["worker"] < 30
