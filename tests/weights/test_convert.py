"""Legacy weight files, converted to safetensors once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub import REVISION, Hub, entry, leftovers, manifest_of
from safetensors.torch import load_file

from seesr import WeightsError
from seesr.weights.cache import Cache
from seesr.weights.hub import pull
from seesr.weights.state_dict import read_state_dict


class Code:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (print, ("this must not be printed",))


def test_a_legacy_file_is_kept_as_safetensors_without_what_is_not_used(hub: Hub, cache: Cache, tmp_path: Path) -> None:
    shared = torch.ones(3)
    tensors = {"visual_encoder.a": torch.arange(4.0), "fc.weight": shared, "tied": shared, "text_decoder.b": torch.ones(9)}
    torch.save({"model": tensors}, tmp_path / "ram.pth")
    content = (tmp_path / "ram.pth").read_bytes()
    hub.files = {"someone/base/ram/ram.pth": content}
    pull(manifest_of([entry("ram/ram.pth", content, drop=["text_decoder."])]), cache, accepted=False)
    assert leftovers(cache) == ["full/digests.json", "full/ram/ram.safetensors"]
    kept = load_file(cache.full / "ram" / "ram.safetensors")
    assert kept.keys() == tensors.keys() - {"text_decoder.b"}
    assert torch.equal(kept["tied"], shared)


@pytest.mark.parametrize("kind", ["model", "url"])
def test_what_was_fetched_stays_when_its_conversion_is_interrupted(
    hub: Hub, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    place = "someone/base/x.pth" if kind == "model" else f"someone/base/{REVISION}/x.pth"
    repository = "someone/base" if kind == "model" else f"{hub.address}/someone/base"
    hub.files, manifest = {place: content}, manifest_of([entry("x.pth", content)], type=kind, repository=repository)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seesr.weights.convert.save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pull(manifest, cache, accepted=False)
    assert leftovers(cache) == ["partial/Base-0/x.pth"]
    pull(manifest, cache, accepted=False)
    assert hub.fetched(place) == 1
    assert leftovers(cache) == ["full/digests.json", "full/x.safetensors"]


def test_a_legacy_file_that_the_manifest_replaces_is_fetched_anew(hub: Hub, cache: Cache, tmp_path: Path) -> None:
    for number in (1.0, 2.0):
        torch.save({"a": torch.full((3,), number)}, tmp_path / "x.pth")
        content = (tmp_path / "x.pth").read_bytes()
        hub.files, manifest = {"someone/base/x.pth": content}, manifest_of([entry("x.pth", content)])
        assert len(cache.missing(manifest)) == 1
        pull(manifest, cache, accepted=False)
        assert cache.missing(manifest) == []
        assert load_file(cache.full / "x.safetensors")["a"][0] == number
    records = cache.records()
    del records["x.safetensors"]["fetched_sha256"]
    (cache.full / "digests.json").write_text(json.dumps(records))
    assert cache.missing(manifest) == [], "a record of before is believed"


@pytest.mark.parametrize("kind", ["code", "truncated"])
def test_a_legacy_file_that_is_not_what_it_says_is_refused(
    hub: Hub, cache: Cache, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": Code() if kind == "code" else {"a": torch.ones(1000)}}, tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    content = content if kind == "code" else content[:2000]
    hub.files = {"someone/base/x.pth": content}
    with pytest.raises(WeightsError, match="holds more than tensors" if kind == "code" else "not a readable PyTorch file"):
        pull(manifest_of([entry("x.pth", content)]), cache, accepted=False)
    assert leftovers(cache) == []
    assert "must not be printed" not in capsys.readouterr().out


def test_a_users_legacy_file_is_converted_once(cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    torch.save({"w": torch.arange(3.0), "tag_encoder.x": torch.ones(1)}, folder / "ram_swin_x.pth")
    for _ in range(2):
        assert read_state_dict(folder, "ram_swin_*", drop_prefixes=("tag_encoder.",)).keys() == {"w"}
        (made,) = (cache.root / "converted").iterdir()
    before = made.stat().st_mtime_ns
    read_state_dict(folder, "ram_swin_*")
    assert made.stat().st_mtime_ns == before
    torch.save({"w": torch.zeros(5)}, folder / "ram_swin_x.pth")
    assert read_state_dict(folder, "ram_swin_*")["w"].shape == (5,)
