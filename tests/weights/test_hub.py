"""Downloads into the cache, from a server on this machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import huggingface_hub.file_download
import pytest
import torch
from hub import REVISION, Hub, entry, leftovers, manifest_of

from seesr import WeightsError
from seesr.weights.cache import Cache
from seesr.weights.hub import pull
from seesr.weights.state_dict import read_state_dict


def test_files_are_fetched_once_and_recorded(hub: Hub, cache: Cache) -> None:
    hub.files = {"someone/base/a/config.json": b"{}", "someone/base/b.bin.txt": b"text"}
    manifest = manifest_of([entry("a/config.json"), entry("b.bin.txt", b"text")])
    told = []
    pull(manifest, cache, accepted=False, on_file=lambda file, what: told.append((file.path, what)))
    assert (cache.full / "a" / "config.json").read_bytes() == b"{}"
    assert cache.missing(manifest) == []
    assert told == [(name, what) for name in ("a/config.json", "b.bin.txt") for what in ("fetch", "done")]
    assert cache.records()["b.bin.txt"]["sha256"] == hashlib.sha256(b"text").hexdigest()
    count = len(hub.requests)
    pull(manifest, cache, accepted=False)
    assert len(hub.requests) == count
    assert leftovers(cache) == ["full/a/config.json", "full/b.bin.txt", "full/digests.json"]


def test_a_transfer_that_breaks_off_goes_on_where_it_was(hub: Hub, cache: Cache) -> None:
    content = os.urandom(24_000_000)
    hub.files = {"someone/base/large.safetensors": content}
    hub.break_off = {"someone/base/large.safetensors": 14_000_000}
    pull(manifest_of([entry("large.safetensors", content)]), cache, accepted=False)
    assert (cache.full / "large.safetensors").read_bytes() == content
    ranges = [span for method, _, span in hub.requests if method == "GET"]
    assert ranges[0] is None
    assert int(ranges[1].removeprefix("bytes=").rstrip("-")) > 0


@pytest.mark.parametrize(("status", "words"), [(404, "404"), (500, "the server answered 500"), (403, "403|no connection")])
def test_a_file_that_cannot_be_had_leaves_the_finished_ones(hub: Hub, cache: Cache, status: int, words: str) -> None:
    hub.files = {"someone/base/good.txt": b"good", "someone/base/bad.txt": b"bad"}
    hub.status = {"someone/base/bad.txt": status}
    manifest = manifest_of([entry("good.txt"), entry("bad.txt")])
    with pytest.raises(WeightsError, match=rf"bad.txt of Base could not be fetched \(.*({words})") as caught:
        pull(manifest, cache, accepted=False)
    assert "run `seesr weights pull` again" in str(caught.value)
    assert leftovers(cache) == ["full/digests.json", "full/good.txt"]
    hub.status = {}
    pull(manifest, cache, accepted=False)
    assert hub.fetched("someone/base/good.txt") == 1
    assert cache.missing(manifest) == []


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_digest_is_refused_and_nothing_stays(hub: Hub, cache: Cache, known: bool) -> None:
    hub.files = {"someone/base/model.safetensors": b"not this"}
    hub.lie = {"someone/base/model.safetensors"}
    manifest = manifest_of([entry("model.safetensors", b"but that" if known else None)])
    with pytest.raises(WeightsError, match=r"its digest is [0-9a-f]{12}\.\.\. instead of [0-9a-f]{12}"):
        pull(manifest, cache, accepted=False)
    assert leftovers(cache) == []


def test_a_mirror_helps_out(hub: Hub, cache: Cache) -> None:
    hub.files = {"someone/copy/x.txt": b"x", "spaces/someone/space/x.txt": b"y"}
    mirrors = [{"type": "space", "repository": "someone/space"}, {"type": "model", "repository": "someone/copy"}]
    pull(manifest_of([entry("x.txt", b"x")], mirrors=mirrors), cache, accepted=False)
    assert (cache.full / "x.txt").read_bytes() == b"x"
    with pytest.raises(ValueError, match="a mirror without a revision needs a sha256"):
        manifest_of([entry("x.txt")], mirrors=mirrors)


def test_another_manifest_asks_for_other_files(hub: Hub, cache: Cache) -> None:
    for content in (b"first", b"other"):
        hub.files = {"someone/base/model.safetensors": content}
        manifest = manifest_of([entry("model.safetensors", content)])
        assert cache.missing(manifest)
        pull(manifest, cache, accepted=False)
        assert (cache.full / "model.safetensors").read_bytes() == content
        assert not cache.missing(manifest)
    assert not cache.missing(manifest_of([entry("model.safetensors")])), "one that knows no digest takes what is there"


def test_what_a_killed_pull_left_goes_first(hub: Hub, cache: Cache) -> None:
    left = cache.partial / "Base-0" / ".cache" / "huggingface" / "download" / "abc.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * 1000)
    hub.status = {"someone/base/x.txt": 500}
    with pytest.raises(WeightsError, match="answered 500"):
        pull(manifest_of([entry("x.txt")]), cache, accepted=False)
    assert not left.exists()


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:9", "nonsense://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_one_error(
    hub: Hub, cache: Cache, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    huggingface_hub.close_session()
    try:
        with pytest.raises(WeightsError, match=r"x.txt of Base could not be fetched .*proxy"):
            pull(manifest_of([entry("x.txt")]), cache, accepted=False)
    finally:
        monkeypatch.undo()
        huggingface_hub.close_session()


def test_plain_addresses(hub: Hub, cache: Cache) -> None:
    hub.files = {f"raw/{REVISION}/data/tags.txt": b"cat\ndog\n"}
    file = entry("ram/tags.txt", b"cat\ndog\n", remote="data/tags.txt")
    pull(manifest_of([file], type="url", repository=f"{hub.address}/raw"), cache, accepted=False)
    assert (cache.full / "ram" / "tags.txt").read_text() == "cat\ndog\n"
    unchecked = manifest_of([entry("new.txt", remote="data/tags.txt")], type="url", repository=f"{hub.address}/raw")
    with pytest.raises(WeightsError, match="no checksum is known for this file"):
        pull(unchecked, cache, accepted=False)


def test_a_plain_mirror_needs_no_revision(hub: Hub, cache: Cache) -> None:
    hub.files = {"mirror/data/tags.txt": b"cat\ndog\n"}
    mirror = {"type": "url", "repository": f"{hub.address}/mirror"}
    pull(
        manifest_of([entry("ram/tags.txt", b"cat\ndog\n", remote="data/tags.txt")], mirrors=[mirror]), cache, accepted=False
    )
    assert (cache.full / "ram" / "tags.txt").read_text() == "cat\ndog\n"


@pytest.mark.parametrize("endpoint", ["hub.example.org", "https://mirror:port", "https://a b", "ftp://hub.example.org"])
def test_an_endpoint_that_is_no_address_is_one_error(
    hub: Hub, cache: Cache, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(WeightsError, match=r"HF_ENDPOINT is .*; it must be an address like https://huggingface.co"):
        pull(manifest_of([entry("x.txt")]), cache, accepted=False)
    hub.files = {"someone/base/x.txt": b"x"}
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/\r")  # as a file with Windows' line ends gives it
    pull(manifest_of([entry("x.txt")]), cache, accepted=False)


def test_no_server_is_one_error(cache: Cache, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"x.txt of Base could not be fetched .*refused"):
        pull(manifest_of([entry("x.txt")]), cache, accepted=False)


def test_a_licence_is_shown_before_the_first_download(hub: Hub, cache: Cache) -> None:
    hub.files = {"someone/base/x.txt": b"x"}
    manifest = manifest_of([entry("x.txt")], must_accept=True)
    with pytest.raises(WeightsError, match=r"the A Licence; read it at https://example.org/licence.*--accept-license"):
        pull(manifest, cache, accepted=False)
    assert hub.requests == []
    pull(manifest, cache, accepted=True)
    pull(manifest, cache, accepted=False)


def test_a_disk_without_room_is_said_before_anything_is_fetched(hub: Hub, cache: Cache) -> None:
    hub.files = {"someone/base/x.txt": b"x"}
    with pytest.raises(WeightsError, match=r"need 1000000000\.0 GB, but only \d+\.\d GB are free in .*SEESR_CACHE"):
        pull(manifest_of([entry("x.txt", b"x", megabytes=10**12)]), cache, accepted=False)
    assert leftovers(cache) == []


@pytest.mark.parametrize("name", ["x.txt", "x.pth"])
def test_what_is_fetched_can_be_read_by_others(hub: Hub, cache: Cache, tmp_path: Path, name: str) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / name)
    content, new = (tmp_path / name).read_bytes(), tmp_path / "new"
    new.touch()
    hub.files = {f"someone/base/{name}": content}
    pull(manifest_of([entry(name, content)]), cache, accepted=False)
    modes = [path.stat().st_mode for path in cache.full.iterdir()]
    assert modes == [new.stat().st_mode] * 2


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEESR_CACHE", str(tmp_path / "file"))
    torch.save({"w": torch.arange(3.0)}, tmp_path / "DAPE.pth")
    assert read_state_dict(tmp_path, "DAPE")["w"].tolist() == [0, 1, 2]


def test_records_survive_damage(cache: Cache) -> None:
    cache.full.mkdir(parents=True)
    (cache.full / "digests.json").write_text("{")
    assert cache.records() == {}
    for content in (b"[1]", b"\xff\xfe\x00", b'{"x": 3}'):
        (cache.full / "digests.json").write_bytes(content)
        assert cache.records() == {}
