"""The Cog surface: one real server, one real prediction; its inputs described as `options.py` describes them."""

from __future__ import annotations

import base64
import inspect
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from seesr import Options, Upscaler

ROOT = Path(__file__).parents[1]
OWN_HELP = {"seed"}
"""Inputs whose help differs: Cog has no optional whole numbers here, so -1 stands for none."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("cog") / "log"
    # Cog spawns its worker as `python`: this environment's must come first.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"COG_PREDICT_TYPE_STUB": "predict.py:Predictor", "PORT": str(port), "PATH": path}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while _status(address) != "READY":
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _status(address: str) -> str:
    try:
        with urllib.request.urlopen(f"{address}/health-check", timeout=5) as answer:
            return json.load(answer)["status"]
    except OSError:
        return "unreachable"


def _predict(address: str, **inputs: object) -> dict:
    request = urllib.request.Request(
        f"{address}/predictions",
        data=json.dumps({"input": inputs}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def _data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def test_one_http_prediction(server: str, small_photo: Image.Image) -> None:
    buffer = io.BytesIO()
    small_photo.save(buffer, "PNG")
    answer = _predict(server, image=_data_url(buffer.getvalue()), scale=2, steps=1, seed=4)
    assert answer["status"] == "succeeded", answer
    assert "seed: 4" in answer["logs"]
    content = base64.b64decode(answer["output"].partition("base64,")[2])
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    here = Upscaler.load().upscale(small_photo, scale=2, steps=1, seed=4).image
    assert image.tobytes() == here.tobytes()


def test_a_broken_picture_fails_with_the_sentence(server: str) -> None:
    answer = _predict(server, image=_data_url(b"no picture"))
    assert answer["status"] == "failed"
    assert "is not a picture" in answer["error"]


def test_inputs_are_described_as_in_options() -> None:
    # Cog reads these calls from the source when it builds, so predict.py must hold literals.
    sys.path.insert(0, str(ROOT))
    from predict import Predictor

    inputs = dict(inspect.signature(Predictor.predict).parameters)
    for name in inputs.keys() & Options.model_fields.keys() - OWN_HELP:
        field = inputs[name].default
        assert field.description == Options.describe(name), name
        assert field.default == Options.model_fields[name].default, name
        assert (field.ge, field.le) == Options.bounds(name), name
    assert inputs.keys() - {"self", "image"} <= Options.model_fields.keys()


def test_cog_installs_what_pyproject_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = (ROOT / "scripts" / "requirements-cog.txt").read_text().split("\n")
    assert sorted(line for line in listed if line) == sorted(project["dependencies"])
    configuration = (ROOT / "cog.yaml").read_text()
    assert re.search(r"python_requirements: scripts/requirements-cog.txt", configuration)
