"""The studio's image: a linter reads its Dockerfile, and its steps are run in a fresh environment. No Docker is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, SCRIPTS
from system_programs import need_program

DOCKERFILE = SCRIPTS / "Dockerfile.studio"


def steps() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.M)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


@pytest.mark.system
def test_linter_finds_nothing() -> None:
    linter = need_program("hadolint", Path(sys.executable).parent)
    assert subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False).stdout == ""


def test_container_is_not_root_and_keeps_its_data() -> None:
    said = dict(steps())
    assert said["USER"] == "10001:10001"
    assert said["VOLUME"] == "/data"
    service = yaml.safe_load((SCRIPTS / "compose.studio.yaml").read_text(encoding="utf-8"))["services"]["studio"]
    assert (SCRIPTS / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DOCKERFILE
    assert service["volumes"] == [f"data:{said['VOLUME']}"]
    assert service["ports"] == [f"127.0.0.1:{said['EXPOSE']}:{said['EXPOSE']}"]


@pytest.mark.long
def test_steps_make_a_studio_that_is_healthy(tmp_path: Path) -> None:
    """What is copied, what pip installs, the command and the health check; not the user, which needs root."""
    context, home = tmp_path / "src", tmp_path / "venv"
    venv.create(home, with_pip=True)
    environment = os.environ | {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SEESR_DATA": str(tmp_path / "data"),
    }
    environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    for word, rest in steps():
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                place = context / target / (Path(source).name if target.endswith("/") else "")
                place.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("cache", "__pycache__"))
                else:
                    shutil.copy(ROOT / source, place)
        elif word == "RUN" and rest.startswith("pip "):
            subprocess.run(rest, shell=True, cwd=context, env=environment, check=True)
    said = dict(steps())
    command = [*json.loads(said["ENTRYPOINT"]), "--port", "7860"]
    check = json.loads(said["HEALTHCHECK"].partition("CMD")[2])
    with subprocess.Popen([home / "bin" / command[0], *command[1:]], cwd=tmp_path, env=environment) as server:
        try:
            for _ in range(60):
                time.sleep(1)
                checked = subprocess.run(
                    [home / "bin" / check[0], *check[1:]], env=environment, check=False, capture_output=True
                )
                if checked.returncode == 0:
                    break
            assert checked.returncode == 0
        finally:
            server.terminate()
    assert server.returncode == 0
