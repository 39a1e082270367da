"""What a user gets who installs a wheel instead of cloning, and the script that serves those who clone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from conftest import SCRIPTS

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


def test_a_word_that_is_not_known_installs_nothing(tmp_path: Path) -> None:
    (tmp_path / "clone" / "scripts").mkdir(parents=True)
    script = shutil.copy(SCRIPTS / "start_seesr.sh", tmp_path / "clone" / "scripts")
    for word in ("upscal", "--help"):
        asked = subprocess.run(["bash", script, word], capture_output=True, text=True)
        assert asked.returncode == 2
        assert asked.stderr.startswith("usage: start_seesr.sh setup | upscale")
    assert [path.name for path in (tmp_path / "clone").iterdir()] == ["scripts"]


def test_the_start_script_may_be_called_by_a_link(tmp_path: Path) -> None:
    """It works on the clone that it lies in, not where the link lies."""
    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    (clone / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(SCRIPTS / "start_seesr.sh", clone / "scripts")
    (clone / "pyproject.toml").touch()
    (clone / ".venv" / ".finished").write_text(f"{clone.resolve()}\n")
    program = clone / ".venv" / "bin" / "seesr"
    program.write_text('#!/bin/sh\necho "$0 $*"\n')
    program.chmod(0o755)
    (tmp_path / "first").symlink_to("clone/scripts/start_seesr.sh")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    (tmp_path / "tools").symlink_to("clone/scripts")
    for link in ("second", "tools/start_seesr.sh"):
        asked = subprocess.run(["bash", tmp_path / link, "tags", "a b.png"], capture_output=True, text=True, check=True)
        assert asked.stdout == f"{program.resolve()} tags a b.png\n"
