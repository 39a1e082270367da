"""The routes of the models, over a real store and a hub on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import Hub
from safetensors.torch import save
from studio_server import ServedStudio, studio_app

from seesr.weights.cache import Cache

LORA = save({"lora_unet_x_attn2_to_k.lora_down.weight": torch.ones(4, 1024)})
LARGE = save({"lora_unet_x_attn2_to_k.lora_down.weight": torch.rand(3000, 1024)})
MODELS, PULLS = "/api/v1/models", "/api/v1/models/pulls"


@pytest.fixture
def app(tmp_path: Path, cache: Cache) -> Iterator[ServedStudio]:
    with studio_app(tmp_path / "data", "ada", "bob") as app:
        app.app.state.pulls.manager.pause = 0.01
        yield app
        app.app.state.pulls.close()


def ended(client: Any, pull: str) -> dict[str, Any]:
    for _ in range(600):
        state = client.get(f"{PULLS}/{pull}").json()
        if state["state"] in ("done", "failed", "cancelled"):
            return state
        time.sleep(0.05)
    raise AssertionError(f"it never ended: {state}")


def test_a_model_is_fetched_in_the_background_reported_and_removed_when_no_job_names_it(hub: Hub, app: ServedStudio) -> None:
    hub.files, hub.card = {"someone/ink/ink.safetensors": LORA}, {"license": "openrail"}
    ada, bob = app.client_of("ada"), app.client_of("bob")
    wanted = {"source": "someone/ink"}
    assert ada.post(f"{MODELS}/plans", json=wanted).json()["must_accept"] is True
    refused = ada.post(PULLS, json=wanted)
    assert refused.status_code == 400
    assert "under the licence openrail" in refused.json()["error"]["message"]
    started = ada.post(PULLS, json=wanted | {"accept_licence": True})
    assert started.status_code == 202
    pull = started.json()["id"]
    assert ended(ada, pull)["model"]["name"] == "ink"
    events = ada.get(f"{PULLS}/{pull}/events")
    last = [json.loads(line[6:]) for line in events.text.splitlines() if line.startswith("data: ")][-1]
    assert (last["state"], last["done"], last["total"]) == ("done", len(LORA), len(LORA))
    again = ada.get(f"{PULLS}/{pull}/events", headers={"Last-Event-ID": str(last["sequence"])})
    assert "data: " not in again.text
    listed = bob.get(MODELS, params={"kind": "loras"}).json()
    assert [(one["name"], one["licence"], one["base"]) for one in listed] == [("ink", "openrail", "SD 2")]
    assert str(app.studio.files.root) not in bob.get(MODELS).text
    assert ada.post(f"{MODELS}/verify", json={}).json()[0]["state"] == "intact"

    app.studio.pause(app.accounts.users()[0], "for the test")
    request = {"task": "text to image", "options": {"prompt": "a cat <lora:ink:0.8>"}}
    job = bob.post("/api/v1/jobs", json={"request": request}).json()["id"]
    used = ada.delete(f"{MODELS}/loras/ink")
    assert (used.status_code, used.json()["error"]["message"]) == (
        409,
        "ink is in use: 1 jobs that run or wait name it; remove it when that has ended.",
    )
    bob.delete(f"/api/v1/jobs/{job}")
    assert ada.delete(f"{MODELS}/loras/ink").status_code == 204
    assert ada.delete(f"{MODELS}/loras/ink").status_code == 404


def test_pulls_run_one_after_the_other_and_end_on_request(hub: Hub, app: ServedStudio) -> None:
    hub.files = {"someone/a/a.safetensors": LARGE, "someone/b/b.safetensors": LORA}
    hub.length = {"someone/a/a.safetensors": len(LARGE) + 10**6}  # so that it never ends by itself
    app.app.state.pulls.manager.pause = 60
    ada = app.client_of("ada")
    first, second, third = (ada.post(PULLS, json={"source": f"someone/{name}"}).json()["id"] for name in "abb")
    assert ada.get(f"{PULLS}/{second}").json()["state"] == "pending"
    assert ada.delete(f"{PULLS}/{third}").status_code == 204
    assert ada.get(f"{PULLS}/{third}").json()["state"] == "cancelled"
    assert ada.delete(f"{PULLS}/{first}").status_code == 204
    assert ended(ada, first)["state"] in ("cancelled", "failed")
    assert ended(ada, second)["state"] == "done"
    assert ada.post(f"{PULLS}/{second}/retry").status_code == 409
    hub.length.clear()
    retried = ada.post(f"{PULLS}/{first}/retry").json()
    assert retried["source"] == ada.get(f"{PULLS}/{first}").json()["source"]
    assert ended(ada, retried["id"])["model"]["name"] == "a"


@pytest.mark.parametrize("address", [f"https://{'a' * 64}.example/x.safetensors", "https://127.0.0.1/\u00fc.safetensors"])
def test_an_address_that_cannot_be_asked_for_fails_alone(hub: Hub, app: ServedStudio, address: str) -> None:
    hub.files = {"someone/b/b.safetensors": LORA}
    ada = app.client_of("ada")
    failed = ended(ada, ada.post(PULLS, json={"source": address, "sha256": "0" * 64}).json()["id"])
    assert (failed["state"], "its address cannot be written in ASCII" in failed["error"]) == ("failed", True)
    assert ended(ada, ada.post(PULLS, json={"source": "someone/b"}).json()["id"])["state"] == "done"


def test_only_admins_change_models(hub: Hub, app: ServedStudio) -> None:
    bob = app.client_of("bob")
    assert bob.get(f"{MODELS}/catalogue").status_code == 200
    for method, path, body in (
        ("POST", PULLS, {"source": "a/b"}),
        ("POST", f"{MODELS}/plans", {"source": "a/b"}),
        ("GET", PULLS, None),
        ("GET", f"{PULLS}/x/events", None),
        ("DELETE", f"{PULLS}/x", None),
        ("POST", f"{PULLS}/x/retry", None),
        ("POST", f"{MODELS}/verify", {}),
        ("DELETE", f"{MODELS}/loras/x", None),
    ):
        assert bob.request(method, path, json=body).status_code == 403, (method, path)
    assert hub.requests == []
    ada = app.client_of("ada")
    for path in (f"{PULLS}/x", f"{PULLS}/x/events", f"{MODELS}/loras/x", f"{MODELS}/loras/../../studio.db"):
        assert ada.get(path).status_code == 404, path
    assert ada.post(PULLS, json={"source": "https://127.0.0.1/x", "sha256": "0" * 64}).status_code == 202
    assert "not a public address" in ended(ada, ada.get(PULLS).json()[-1]["id"])["error"]
