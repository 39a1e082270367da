"""What a user gets who installs a wheel instead of cloning, and the script that serves those who clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from helpers import ROOT, SCRIPTS
from packaging.requirements import Requirement


def test_a_wheel_carries_the_embedded_weights(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    code = (
        "from seesr.weights.resolve import resolve_weights; from seesr.weights.manifest import beside_package; "
        "print(resolve_weights().root, beside_package('pictograms'), sep='\\n')"
    )
    # -P and the path first: the wheel's package must be found, not the clone's.
    environment = {"PYTHONPATH": str(installed), "PATH": "", "SEESR_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-P", "-c", code]
    found = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    for name, place in zip(("tiny", "pictograms"), found.stdout.splitlines(), strict=True):
        root, source = Path(place), ROOT / "weights" / name
        assert root.is_relative_to(installed)
        assert files_in(root).keys() == files_in(source).keys()
        assert sum(files_in(root).values()) < 40e6


def files_in(folder: Path) -> dict[Path, int]:
    """The size of each file in a folder."""
    return {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_constraints_pin_what_pyproject_names_within_its_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = ("cog", "evaluate", "formats", "jxl", "studio", "test")
    lists = (project["dependencies"], *(extras[name] for name in named))
    requirements = [Requirement(line) for lines in lists for line in lines]
    ranges = {requirement.name: requirement.specifier for requirement in requirements if requirement.name != "seesr"}
    lines = (SCRIPTS / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins.keys() == ranges.keys() | {"aiobotocore", "boto3", "botocore", "fsspec"}  # which s3fs and moto share
    assert [name for name, versions in ranges.items() if pins[name] not in versions] == []


FAKE_UV = """#!/bin/sh
# Notes what it is asked for; "installs" programs that say how they were called.
echo "$@" >> "$PLACE/log"
case $1 in
  venv)
    for venv; do :; done # the last word
    mkdir -p "$venv/bin"
    for name in python seesr; do cp "$PLACE/bin/program" "$venv/bin/$name"; done
    ;;
  pip) sleep 0.2; [ ! -e "$PLACE/no_network" ] ;;
esac
"""
FAKE_PROGRAM = """#!/bin/sh
[ "$1" = -c ] || echo "${0##*/} $* in $PWD"
"""


class Clone:
    """A clone with the real start script and lists, and a uv that installs nothing."""

    def __init__(self, place: Path) -> None:
        self.place, self.root = place, place / "clone"
        (self.root / "scripts").mkdir(parents=True)
        for file in ("pyproject.toml", "scripts/start_seesr.sh", "scripts/constraints.txt"):
            shutil.copy(ROOT / file, self.root / file)
        (place / "bin").mkdir()
        for name, text in (("uv", FAKE_UV), ("program", FAKE_PROGRAM)):
            (place / "bin" / name).write_text(text)
            (place / "bin" / name).chmod(0o755)

    def start(self, *words: str, script: Path | None = None) -> Popen[str]:
        environment = os.environ | {"PLACE": str(self.place), "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}"}
        command = ["bash", str(script or self.root / "scripts" / "start_seesr.sh"), *words]
        return Popen(command, cwd=self.place, env=environment, stdout=PIPE, stderr=PIPE, text=True)

    def output(self, *words: str, script: Path | None = None) -> str:
        started = self.start(*words, script=script)
        output, errors = started.communicate()
        assert started.returncode == 0, errors
        return output

    def installed(self) -> list[str]:
        """What uv was asked for since the last call: "venv", or what follows the clone's path: "" for the core, "[test]"."""
        log = self.place / "log"
        commands = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return ["venv" if words[0] == "venv" else self._installed_by(words) for words in commands]

    def _installed_by(self, words: list[str]) -> str:
        assert words[words.index("--constraint") + 1] == str(self.root / "scripts" / "constraints.txt")
        return words[words.index("--editable") + 1].removeprefix(str(self.root))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path.resolve())


def test_the_start_script_hands_each_word_that_it_does_not_own_to_seesr(clone: Clone) -> None:
    assert clone.output("upscale", "a  b.png") == f"seesr upscale a  b.png in {clone.place}\n"
    assert clone.output("upscal") == f"seesr upscal in {clone.place}\n"
    assert clone.output("--help") == f"seesr --help in {clone.place}\n"
    assert clone.output("python", "a.py") == f"python a.py in {clone.place}\n"
    assert clone.output("test", "-k", "a") == f"python -m pytest --numprocesses=2 -k a in {clone.root}\n"


def test_the_start_script_without_a_word_says_how_it_is_used_and_installs_nothing(clone: Clone) -> None:
    started = clone.start()
    output, errors = started.communicate()
    assert (started.returncode, output) == (2, "")
    assert errors.startswith("usage: start_seesr.sh ")
    assert not (clone.root / ".venv").exists()


def test_each_command_installs_once_what_it_needs(clone: Clone) -> None:
    clone.output("upscale")
    assert clone.installed() == ["venv", ""]
    clone.output("test")
    assert clone.installed() == ["[test]"]
    clone.output("evaluate")
    assert clone.installed() == ["[evaluate]"]
    assert clone.output("studio", "--port", "0") == f"seesr studio --port 0 in {clone.place}\n"
    assert clone.installed() == ["[studio]"]
    for command in ("upscale", "setup", "test", "evaluate", "studio", "benchmark", "python"):
        clone.output(command)
    assert clone.installed() == []


def test_an_extra_brings_the_core_with_it(clone: Clone) -> None:
    clone.output("test")
    clone.output("upscale")
    assert clone.installed() == ["venv", "[test]"]


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is missing")
def test_of_commands_started_at_once_one_installs(clone: Clone) -> None:
    started = [clone.start("upscale") for _ in range(3)]
    assert [process.communicate()[0] for process in started] == [f"seesr upscale in {clone.place}\n"] * 3
    assert clone.installed() == ["venv", ""]


@pytest.mark.parametrize("name", ["pyproject.toml", "scripts/constraints.txt"])
def test_when_a_list_changes_it_is_installed_again_until_that_succeeds(clone: Clone, name: str) -> None:
    clone.output("upscale")
    assert clone.installed() == ["venv", ""]
    os.utime(clone.root / ".venv" / ".finished-core", (0, 0))
    other = ({"pyproject.toml", "scripts/constraints.txt"} - {name}).pop()
    os.utime(clone.root / other, (0, 0))
    (clone.place / "no_network").touch()
    assert clone.start("upscale").wait() == 1
    (clone.place / "no_network").unlink()
    clone.output("upscale")
    assert clone.installed() == ["", ""]


def test_an_environment_that_was_never_finished_or_was_moved_is_made_anew(clone: Clone) -> None:
    (clone.place / "no_network").touch()
    assert clone.start("test").wait() == 1
    (clone.place / "no_network").unlink()
    clone.output("test")
    assert clone.installed() == ["venv", "[test]"] * 2
    clone.root = clone.root.rename(clone.place / "moved")
    clone.output("upscale")
    assert clone.installed() == ["venv", ""]


def test_the_start_script_may_be_called_by_a_link(clone: Clone) -> None:
    """It works on the clone that it lies in, not where the link lies."""
    (clone.place / "first").symlink_to("clone/scripts/start_seesr.sh")
    (clone.place / "second").symlink_to(clone.place / "first")
    (clone.place / "tools").symlink_to("clone/scripts")
    for link in ("second", "tools/start_seesr.sh"):
        assert clone.output("test", script=clone.place / link) == f"python -m pytest --numprocesses=2 in {clone.root}\n"
