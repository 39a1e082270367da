"""The full model's way into the cache, from a server on this machine that speaks as much of the hub as that takes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.file_download
import pytest
import torch
from conftest import IMAGES, Run
from safetensors.torch import load_file, save_file

from seesr import Upscaler, WeightsError
from seesr.cli import weights as commands
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import load_prompt_encoder
from seesr.tagging.prompt import load_tag_list
from seesr.tagging.ram import load_ram
from seesr.weights.cache import Cache, sha256
from seesr.weights.config import read_config
from seesr.weights.hub import pull
from seesr.weights.manifest import Manifest, beside_package, read_manifest
from seesr.weights.resolve import ModelDefaults, resolve_weights
from seesr.weights.state_dict import read_state_dict

REVISION = "0123456789abcdef0123456789abcdef01234567"
TINY = beside_package("tiny")


@dataclass
class Hub:
    """What the server has, and how it misbehaves."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Content by path: `repository/file`, `spaces/repository/file`, or any for plain addresses."""
    status: dict[str, int] = field(default_factory=dict)
    break_off: dict[str, int] = field(default_factory=dict)
    """Bytes after which the first transfer of a file ends."""
    lie: set[str] = field(default_factory=set)
    """Files whose stated digest is not that of their content."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, range) of each request."""

    def fetched(self, path: str) -> int:
        return sum(method == "GET" and where == path for method, where, _ in self.requests)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            path = self.path.lstrip("/").replace(f"/resolve/{REVISION}", "").replace("/resolve/main", "")
            state.requests.append((self.command, path, self.headers.get("Range")))
            status = state.status.get(path, 200 if path in state.files else 404)
            content = state.files.get(path, b"") if status == 200 else b""
            digest = hashlib.sha256(b"something else" if path in state.lie else content).hexdigest()
            start = 0
            if status == 200 and self.headers.get("Range"):
                start, status = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]), 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Repo-Commit", REVISION)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if with_body:
                stop = state.break_off.pop(path, None)
                self.wfile.write(content[start:stop])
                if stop is not None:
                    self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", state.address)
    monkeypatch.setattr(huggingface_hub.file_download, "_ETAG_RETRY_TIMEOUT", 1)
    yield state
    server.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("SEESR_CACHE", str(tmp_path / "cache"))
    return Cache.default()


def manifest_of(files: list[dict], **source: object) -> Manifest:
    table = {
        "name": "Base",
        "type": "model",
        "repository": "someone/base",
        "revision": REVISION,
        "mirrors": [],
        "licence": "A Licence",
        "licence_page": "https://example.org/licence",
        "must_accept": False,
        "files": files,
    }
    return Manifest(source=[table | source])


def entry(path: str, content: bytes | None = None, **values: object) -> dict:
    known = {} if content is None else {"sha256": hashlib.sha256(content).hexdigest()}
    return {"path": path, "remote": path, "megabytes": 0} | known | values


def leftovers(cache: Cache) -> list[str]:
    """Every file in the cache but the lock and the downloader's own notes."""
    found = (
        path for path in cache.root.rglob("*") if path.is_file() and ".cache" not in path.parts and path.name != ".lock"
    )
    return sorted(str(path.relative_to(cache.root)) for path in found)


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


def test_of_a_file_a_part_is_read_in_another_precision(tmp_path: Path) -> None:
    tensors = {f"{kind}.{n}": torch.full((2,), float(n)).half() for kind in "ab" for n in range(150)}
    save_file(tensors | {"a.position_ids": torch.arange(3)}, tmp_path / "x.safetensors")
    found = read_state_dict(tmp_path, "x", torch.bfloat16, containing="a.")
    assert len(found) == 151
    assert {tensor.dtype for key, tensor in found.items() if key != "a.position_ids"} == {torch.bfloat16}
    assert found["a.position_ids"].tolist() == [0, 1, 2]
    assert all(found[f"a.{n}"].tolist() == [n, n] for n in range(150))
    assert read_state_dict(tmp_path, "x")["b.7"].dtype == torch.float16


def test_a_file_of_the_oldest_format_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(3.0)}, tmp_path / "DAPE.pth", _use_new_zipfile_serialization=False)
    assert read_state_dict(tmp_path, "DAPE")["w"].tolist() == [0, 1, 2]


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
    refused = seesr("upscale", IMAGES / "rocket.jpg", "-o", tmp_path / "x.png", "--weights", "full")
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

    monkeypatch.setattr(commands, "sha256", fail)
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


def test_weights_may_ask_for_precision_margin_and_steps(tmp_path: Path) -> None:
    for part in ("sd-turbo", "seesr", "ram"):
        (tmp_path / part).mkdir()
    assert resolve_weights(tmp_path).name == tmp_path.name, "results tell it to strangers: not where it lies"
    assert resolve_weights(tmp_path).defaults == ModelDefaults(dtype=None, margin=0)
    (tmp_path / "seesr.json").write_text('{"dtype": "float32", "margin": 3, "steps": 1}')
    assert resolve_weights(tmp_path).defaults == ModelDefaults(dtype="float32", margin=3, steps=1)
    for said, complaint in (
        ('{"dtype": "float8"}', "has dtype 'float8'; valid: float32"),
        ('{"margin": -1}', "has margin -1; it must be a whole number from 0 to 8"),
        ('{"margin": "2"}', "has margin '2'"),
        ('{"steps": 5}', "has steps 5; it must be a whole number from 1 to 4"),
        ('{"step": 1}', "holds unknown key 'step'; valid keys: dtype, margin, steps"),
    ):
        (tmp_path / "seesr.json").write_text(said)
        with pytest.raises(WeightsError, match=complaint):
            resolve_weights(tmp_path).defaults  # noqa: B018


def test_a_tagger_config_that_lacks_something_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_tags": 3, "image_size": 64}')
    with pytest.raises(WeightsError, match=r"config\.json lacks 'bert'"):
        load_ram(tmp_path)


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({}, "lacks 'swin or efficientnet'"),
        ({"efficientnet": {"stem": 8, "blocks": []}}, "lacks 'width'"),
        (
            {"efficientnet": {"stem": 8, "blocks": [{"kernel": 3}], "width": 8}},
            "RAM cannot be built .*missing",
        ),
        ({"efficientnet": {"stem": -8, "blocks": [], "width": 8}}, "RAM cannot be built from .*config.json"),
        ({"swin": {"window_size": 7, "embed_dim": 8, "depths": [2], "num_heads": [1]}}, "cannot be split into windows"),
    ],
)
def test_a_tagger_config_that_is_wrong_is_one_sentence(tmp_path: Path, part: dict[str, object], complaint: str) -> None:
    config = json.loads((TINY / "ram" / "config.json").read_text())
    del config["efficientnet"]
    (tmp_path / "config.json").write_text(json.dumps(config | part))
    with pytest.raises(WeightsError, match=complaint):
        load_ram(tmp_path)


def test_a_threshold_that_is_no_number_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ram_tag_list.txt").write_text("cat\ndog\n")
    (tmp_path / "ram_tag_list_threshold.txt").write_text("0.5\n\n")
    with pytest.raises(WeightsError, match=r"ram_tag_list_threshold\.txt has a line that is not a number"):
        load_tag_list(tmp_path, 2)


@pytest.mark.parametrize("lacking", ["vocab.json", "merges.txt"])
def test_a_tokenizer_that_lacks_a_file_is_one_sentence(tmp_path: Path, lacking: str) -> None:
    shutil.copytree(TINY / "sd-turbo" / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / lacking).unlink()
    with pytest.raises(WeightsError, match=rf"{lacking} is missing"):
        load_prompt_encoder(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta_start": None}, "lacks beta_start"),
        ({"beta_schedule": "sigmoid"}, "has beta schedule 'sigmoid'"),
        ({"prediction_type": "sample"}, "has prediction type 'sample'"),
        ({"rescale_betas_zero_snr": True}, "has rescale_betas_zero_snr"),
    ],
)
def test_a_schedule_that_is_not_known_is_one_sentence(change: dict[str, Any], words: str) -> None:
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"} | change
    with pytest.raises(WeightsError, match=words):
        NoiseSchedule.from_config({name: value for name, value in config.items() if value is not None})
    assert NoiseSchedule.from_config({"trained_betas": [0.1, 0.5]}).alphas_cumprod.tolist() == pytest.approx([0.9, 0.45])


def test_a_config_that_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        read_config(tmp_path / "config.json")


def test_a_cut_file_in_a_weights_folder_is_named(tmp_path: Path) -> None:
    save_file({"w": torch.ones(100)}, tmp_path / "DAPE.safetensors")
    content = (tmp_path / "DAPE.safetensors").read_bytes()
    (tmp_path / "DAPE.safetensors").write_bytes(content[:-40])
    with pytest.raises(WeightsError, match=r"DAPE.safetensors is not a complete safetensors file"):
        read_state_dict(tmp_path, "DAPE")


def test_the_manifest_names_every_file_that_is_loaded() -> None:
    manifest = read_manifest()
    kept = {file.cached_path for _, file in manifest.files}
    # The embedded model has the published layout; only RAM's file is named otherwise, its size is no config file, and the
    # published model has no cleaner.
    here = {path.relative_to(TINY).as_posix() for path in TINY.rglob("*") if path.is_file()}
    here = {path for path in here if not path.startswith("cleaner/")}
    here = {path.replace("ram_tiny", "ram_swin_large_14m") for path in here} - {"ram/config.json", "seesr.json"}
    assert here <= kept
    assert all(len(source.revision) == 40 for source in manifest.source)
    licences = {source.licence for source in manifest.source}
    assert licences == {"Stability AI Community License", "Apache-2.0"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("[[source]", "is not TOML"), ("source = 3", "is wrong at source"), ("[[source]]\nname = 'x'", "is wrong at source.0")],
)
def test_a_bad_manifest_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text(text)
    monkeypatch.setenv("SEESR_MANIFEST", str(path))
    with pytest.raises(WeightsError, match=words):
        read_manifest()
    monkeypatch.setenv("SEESR_MANIFEST", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_manifest()


def test_records_survive_damage(cache: Cache) -> None:
    cache.full.mkdir(parents=True)
    (cache.full / "digests.json").write_text("{")
    assert cache.records() == {}
    for content in (b"[1]", b"\xff\xfe\x00", b'{"x": 3}'):
        (cache.full / "digests.json").write_bytes(content)
        assert cache.records() == {}
