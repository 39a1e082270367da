"""What a prompt is written for: checkpoints and what they ask for, the length of a prompt, previews beside LoRAs."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import loras
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from starlette.testclient import TestClient
from studio_server import studio_app

from seesr.generation.checkpoint_facts import CHECKPOINT_VARIABLE
from seesr.studio.api.native import PREFIX
from seesr.weights.manifest import beside_package


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the checkpoints `mine` and `broken`, the LoRAs `ink` and `plain`, and the embedding `mood`."""
    data = tmp_path_factory.mktemp("data")
    models = data / "models"
    shutil.copytree(beside_package("pictograms"), models / "checkpoints" / "mine")
    (models / "checkpoints" / "mine" / "seesr.json").write_text(json.dumps({"steps": 8, "guidance_scale": 2.5}))
    (models / "checkpoints" / "broken" / "unet").mkdir(parents=True)
    for name in ("ink", "plain"):
        down, up = torch.zeros(2, 8), torch.zeros(8, 2)
        loras.write(models / "loras" / "styles" / f"{name}.safetensors", loras.kohya({"mid_block.a": (down, up)}))
    Image.new("RGB", (900, 600), "teal").save(models / "loras" / "styles" / "ink.preview.png")
    (models / "loras" / "styles" / "plain.png").write_bytes(b"no picture")
    (models / "embeddings").mkdir()
    save_file({"emb_params": torch.zeros(3, 8)}, models / "embeddings" / "mood.safetensors")
    return data


@pytest.fixture
def client(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("SEESR_DATA", str(data))
    with studio_app(data) as served, served.client() as client:
        yield client


def test_checkpoints_say_what_they_ask_for(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first, broken, mine = client.get(f"{PREFIX}/checkpoints").json()
    values = {"base": None, "side": 128, "steps": 20, "guidance_scale": 5.0, "problem": None}
    assert first == {"name": "pictograms", "is_default": True, **values}
    assert mine == {"name": "mine", "is_default": False, **values, "steps": 8, "guidance_scale": 2.5}
    assert (broken["name"], broken["side"], bool(broken["problem"])) == ("broken", None, True)
    monkeypatch.setenv(CHECKPOINT_VARIABLE, "mine")
    assert [(one["name"], one["is_default"]) for one in client.get(f"{PREFIX}/checkpoints").json()] == [
        ("mine", True),
        ("pictograms", False),
        ("broken", False),
    ]


def test_tokens_are_counted_as_the_checkpoint_reads_them(client: TestClient) -> None:
    def count(prompt: str, **others: str) -> int:
        answer = client.post(f"{PREFIX}/tokens", json={"prompt": prompt, **others})
        assert answer.status_code == 200, answer.text
        assert answer.json()["limit"] == 75
        return answer.json()["tokens"]

    assert [count(""), count("a red apple"), count("a (red:1.3) apple <lora:ink:0.8>")] == [0, 3, 3]
    assert count("a red apple, mood") == count("a red apple,") + 3
    assert count("a " * 100, checkpoint="mine") == 100
    unknown = client.post(f"{PREFIX}/tokens", json={"prompt": "a", "checkpoint": "../mine"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    refused = client.post(f"{PREFIX}/tokens", json={"prompt": "a <lora:ink:x>"})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("the LoRA 'ink:x' has 'x'")
    assert client.post(f"{PREFIX}/tokens", json={"prompt": "a", "checkpoint": "broken"}).status_code == 400


def test_a_preview_is_made_small_and_what_is_none_is_told(client: TestClient) -> None:
    known = {one["name"]: one["has_preview"] for one in client.get(f"{PREFIX}/models?kind=loras").json()}
    assert known == {"styles/ink": True, "styles/plain": True}
    answer = client.get(f"{PREFIX}/models/previews/loras/styles/ink")
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.size) == ("WEBP", (384, 256))
    assert client.get(f"{PREFIX}/models/previews/loras/styles/plain").status_code == 400
    assert client.get(f"{PREFIX}/models/previews/embeddings/mood").status_code == 404
    assert client.get(f"{PREFIX}/models/previews/loras/..%2F..%2Fstudio").status_code == 404


def test_the_routes_need_no_pytorch() -> None:
    modules = ("torch", "diffusers", "transformers")
    code = f"import sys, seesr.studio.api.prompts; print([name for name in {modules} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
