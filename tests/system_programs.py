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


def need_npm_package(name: str) -> Path:
    """The folder `node_modules` that has a package, which SEESR_NODE_MODULES names; without it as `need_program`."""
    folder = Path(os.environ.get("SEESR_NODE_MODULES", "node_modules"))
    if not (folder / name).is_dir():
        reason = f"the npm package {name} is not in {folder}; install it there, or name another in SEESR_NODE_MODULES"
        if os.environ.get("SEESR_TEST_SYSTEM"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder.resolve()
