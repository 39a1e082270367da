"""Programs beside Python that some tests need; such tests have the marker `system`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def need_program(name: str, *folders: Path) -> Path:
    """Where a program is, looked for in `folders` first; without it the test is skipped, or fails in CI."""
    path = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    if path is None:
        reason = f"the program {name} is not installed"
        if os.environ.get("SEESR_TEST_SYSTEM"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(path)
