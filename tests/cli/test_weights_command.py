"""`seesr weights`: pulls, lists and verifies a model."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from helpers import PHOTOS, Run
from hub import REVISION, Hub

from seesr import Upscaler
from seesr.weights.cache import Cache, sha256
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import resolve_weights

TINY = beside_package("tiny")


@pytest.fixture
def tiny_on_hub(hub: Hub, tmp_path: Path) -> Path:
    """The embedded model as if it were published, and a manifest of it."""
    lines = []
    for path in sorted(path for path in TINY.rglob("*") if path.is_file()):
        name = path.relative_to(TINY).as_posix()
        hub.files[f"someone/base/{name}"] = path.read_bytes()
        lines.append(f'{{ path = "{name}", remote = "{name}", megabytes = 1, sha256 = "{sha256(path)}" }}')
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(
        f'[[source]]\nname = "Base"\ntype = "model"\nrepository = "someone/base"\nrevision = "{REVISION}"\nmirrors = []\n'
        'licence = "A Licence"\nlicence_page = "https://example.org"\nmust_accept = true\n'
        f"files = [{', '.join(lines)}]\n"
    )
    return manifest


def test_the_command_pulls_lists_verifies_and_uses_a_model(
    seesr: Run, hub: Hub, cache: Cache, tiny_on_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEESR_MANIFEST", str(tiny_on_hub))
    refused = seesr("upscale", PHOTOS / "rocket.jpg", "-o", tmp_path / "x.png", "--weights", "full")
    assert refused.code == 2
    assert f"files are missing in {cache.full}" in refused.err
    assert "`seesr weights pull` fetches them" in refused.err
    assert "SEESR_ACCEPT_LICENSE" in seesr("weights", "pull").err
    pulled = seesr("weights", "pull", "--accept-license")
    assert pulled.code == 0, pulled.err
    assert "Base: A Licence, https://example.org" in pulled.err
    assert "missing" not in seesr("weights", "list").out
    assert seesr("weights", "verify").code == 0
    assert f"full (cache): {cache.full}" in seesr("info").out
    changed = cache.full / "ram" / "DAPE.safetensors"
    changed.write_bytes(b"x" * changed.stat().st_size)
    verified = seesr("weights", "verify")
    assert verified.code == 1
    assert "changed    ram/DAPE.safetensors" in verified.out
    assert "missing" in seesr("weights", "list").out

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("seesr.weights.cache.sha256", fail)
    monkeypatch.setattr(Cache, "invalidate", fail)
    verified = seesr("weights", "verify")
    assert verified.code == 1
    assert "unreadable vae" in verified.out.replace("sd-turbo/", "")
    assert "cannot be written: Input/output error" in verified.err


def test_the_cache_comes_before_the_embedded_model_and_a_path_before_both(
    hub: Hub, cache: Cache, tiny_on_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEESR_MANIFEST", str(tiny_on_hub))
    assert resolve_weights().name == "tiny (embedded)"
    monkeypatch.setenv("SEESR_ACCEPT_LICENSE", "1")
    assert resolve_weights("full").root == cache.full
    assert resolve_weights().name == "full (cache)"
    assert resolve_weights("tiny").root == TINY
    monkeypatch.setenv("SEESR_WEIGHTS", str(TINY))
    assert resolve_weights().root == TINY
    assert resolve_weights("full").root == cache.full
    Upscaler.load("full", device="cpu")
