"""What a user gets who installs a wheel instead of cloning."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_carries_the_embedded_weights(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    code = "from seesr.weights.resolve import resolve_weights; print(resolve_weights().root)"
    # -P and the path first: the wheel's package must be found, not the clone's.
    environment = {"PYTHONPATH": str(installed), "PATH": "", "SEESR_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-P", "-c", code]
    found = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    root = Path(found.stdout.strip())
    assert root.is_relative_to(installed)
    here = {path.relative_to(ROOT / "weights" / "tiny") for path in (ROOT / "weights" / "tiny").rglob("*") if path.is_file()}
    assert {path.relative_to(root) for path in root.rglob("*") if path.is_file()} == here
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 40e6
