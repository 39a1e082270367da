"""Models that are fetched from a hub and a file server on this machine, which misbehave."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import REVISION, Hub
from safetensors.torch import save

from seesr.addresses import AddressRules
from seesr.errors import AddressError, CanceledError, OptionError, SeeSRError, WeightsError
from seesr.models.catalogue import ModelSource, parse_source
from seesr.models.manager import ModelManager
from seesr.models.plans import Plan
from seesr.weights.cache import Cache
from seesr.weights.manifest import beside_package

LORA = save({"lora_unet_x_attn2_to_k.lora_down.weight": torch.ones(4, 1024)}, {"ss_v2": "True"})
LARGE = save({"lora_unet_x_attn2_to_k.lora_down.weight": torch.rand(3000, 1024)})
"""12 MB."""


@pytest.fixture
def manager(tmp_path: Path, cache: Cache) -> ModelManager:
    return ModelManager(tmp_path / "data", others=(), pause=0.01)


def pull(manager: ModelManager, what: str, **options: Any) -> Any:
    return manager.pull(manager.plan(parse_source(what, options.pop("sha256", None))), **options)


def left(manager: ModelManager) -> list[str]:
    """Files of models, and of what was not finished."""
    found = (path for path in manager.models.rglob("*") if path.is_file() and path.suffix not in (".json", ".lock"))
    return sorted(path.relative_to(manager.models).as_posix() for path in found if path.name != ".lock")


def by_address(hub: Hub, manager: ModelManager, path: str, content: bytes) -> Plan:
    """The plan for a file of the server, for a manager that may fetch from this machine."""
    import hashlib

    manager.rules = AddressRules(allow_private=True)
    return manager.plan(parse_source(f"{hub.address}/{path}", hashlib.sha256(content).hexdigest()))


def test_a_file_of_a_repository_is_fetched_once_checked_and_recorded(hub: Hub, manager: ModelManager) -> None:
    hub.files = {"someone/style/my style.safetensors": LORA, "someone/style/README.md": b"x", "someone/style/x.py": b"x"}
    hub.card = {"license": "mit"}
    told = list[tuple[int, int]]()
    info = pull(manager, "someone/style", on_bytes=lambda done, total: told.append((done, total)))
    assert (info.kind, info.name, info.base, info.problem) == ("loras", "my style", "SD 2", None)
    assert (info.source, info.licence) == ("someone/style", "mit")
    assert manager.records.read()["loras/my style"]["revision"] == REVISION, "the newest, as it was found"
    assert (manager.models / "loras" / "my style.safetensors").read_bytes() == LORA
    assert left(manager) == ["loras/my style.safetensors"]
    assert told[-1] == (len(LORA), len(LORA))
    assert [verified.state for verified in manager.verify()] == ["intact"]
    with pytest.raises(WeightsError, match=r"models/loras has my style already; remove it before"):
        pull(manager, "someone/style", kind="loras")
    assert pull(manager, f"someone/style@{REVISION}:my style.safetensors", name="second").name == "second"


def test_of_a_checkpoint_only_what_is_read_is_fetched(hub: Hub, manager: ModelManager) -> None:
    root = beside_package("pictograms")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    hub.files = {f"someone/pictograms/{name}": content for name, content in files.items()}
    half = hub.files.pop("someone/pictograms/vae/diffusion_pytorch_model.safetensors")
    hub.files["someone/pictograms/vae/diffusion_pytorch_model.fp16.safetensors"] = half
    hub.files |= {f"someone/pictograms/{name}": b"pickle" for name in ("unet/diffusion_pytorch_model.bin", "pipeline.py")}
    info = pull(manager, "someone/pictograms", kind="checkpoints")
    assert (info.kind, info.name, info.is_folder, info.problem) == ("checkpoints", "pictograms", True, None)
    folder = manager.models / "checkpoints" / "pictograms"
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == half
    assert not list(folder.rglob("*.bin")) + list(folder.rglob("*.py"))
    assert {verified.state for verified in manager.verify("checkpoints", "pictograms")} == {"intact"}
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "vae" / "config.json").unlink()
    states = {verified.file: verified.state for verified in manager.verify()}
    assert (states["unet/config.json"], states["vae/config.json"]) == ("changed", "missing")


def test_what_breaks_off_goes_on_after_what_is_there(hub: Hub, manager: ModelManager) -> None:
    path = "someone/style/large.safetensors"
    hub.files, hub.break_off = {path: LARGE}, {path: 5_000_000}
    assert pull(manager, "someone/style").size == len(LARGE)
    assert [span for method, where, span in hub.requests if where == path] == [None, "bytes=5000000-"]


def test_another_process_goes_on_where_one_was_killed_or_cancelled(hub: Hub, manager: ModelManager) -> None:
    hub.files = {"someone/style/large.safetensors": LARGE}
    seen = list[int]()
    with pytest.raises(CanceledError, match="what was fetched of it is kept"):
        pull(
            manager,
            "someone/style",
            on_bytes=lambda done, total: seen.append(done),
            cancelled=lambda: bool(seen) and seen[-1] > 2_000_000,
        )
    assert [name.startswith(".partial/") for name in left(manager)] == [True]
    again = ModelManager(manager.models.parent, others=(), pause=0.01)
    assert pull(again, "someone/style").size == len(LARGE)
    assert hub.requests[-1][2] == f"bytes={seen[-1]}-"
    assert left(manager) == ["loras/large.safetensors"]


def test_a_server_that_always_breaks_off_is_given_up(hub: Hub, manager: ModelManager) -> None:
    path = "someone/style/large.safetensors"
    hub.files, hub.length = {path: LARGE[:1_000_000]}, {path: len(LARGE)}
    with pytest.raises(WeightsError, match=r"ended after 1,000,000 of [\d,]+ bytes; 1,000,000 bytes are kept"):
        pull(manager, "someone/style")
    assert hub.fetched(path) == 6


@pytest.mark.parametrize(
    ("stated", "words"),
    [(len(LORA) - 8, "its digest is"), (len(LORA) + 8, r"ended after [\d,]+ of [\d,]+ bytes"), (0, "its digest is")],
)
def test_lies_about_the_length_are_noticed(hub: Hub, manager: ModelManager, stated: int, words: str) -> None:
    hub.files, hub.length = {"files/x.safetensors": LORA}, {"files/x.safetensors": stated}
    plan = by_address(hub, manager, "files/x.safetensors", LORA)
    with pytest.raises(WeightsError, match=words):
        manager.pull(plan)
    assert not (manager.models / "loras").exists()


def test_a_repository_and_its_server_must_state_the_same_length(hub: Hub, manager: ModelManager) -> None:
    path = "someone/style/x.safetensors"
    hub.files = {path: LORA}
    plan = manager.plan(parse_source("someone/style"))
    hub.length = {path: len(LORA) + 1000}
    with pytest.raises(WeightsError, match=r"the server offers [\d,]+ bytes instead of [\d,]+"):
        manager.pull(plan)


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_digest_is_refused_and_nothing_stays(hub: Hub, manager: ModelManager, known: bool) -> None:
    hub.files = {"someone/style/x.safetensors": LORA}
    hub.lie = set() if known else {"someone/style/x.safetensors"}
    with pytest.raises(WeightsError, match=r"its digest is [0-9a-f]{12}\.\.\. instead of [0-9a-f]{12}\.\.\.; it was deleted"):
        pull(manager, "someone/style:x.safetensors", sha256="0" * 64 if known else None)
    assert left(manager) == []


def test_more_than_the_disk_holds_is_not_begun(hub: Hub, manager: ModelManager) -> None:
    path = "someone/style/x.safetensors"
    free = shutil.disk_usage("/").free
    hub.files, hub.length = {path: LORA}, {path: free + 20_000_000_000}
    with pytest.raises(WeightsError, match=r"GB are needed, and [\d,.]+ .B are free in"):
        pull(manager, "someone/style")
    assert hub.fetched(path) == 0, "the hub had told how large it is"
    with pytest.raises(WeightsError, match=r"GB are needed, and [\d,.]+ .B are free in"):
        manager.pull(by_address(hub, manager, path, LORA))
    assert not [name for name in left(manager) if not name.endswith(".part")]


def test_redirects_lead_to_no_private_address(hub: Hub, manager: ModelManager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as secret:
        secret.settimeout(0.1)
        port = secret.getsockname()[1]
        hub.files = {"someone/style/x.safetensors": LORA}
        for address, words in {
            f"http://127.0.0.1:{port}/x": "is of http; only https is fetched from",
            f"https://127.0.0.1:{port}/x": "127.0.0.1 is 127.0.0.1, which is not a public address",
            f"https://localhost:{port}/x": r"localhost is (127.0.0.1|::1), which is not a public address",
            f"https://[::ffff:127.0.0.1]:{port}/x": "not a public address",
            f"https://0x7f000001:{port}/x": "not a public address",
            f"https://10.0.0.7:{port}/x": "not a public address",
            f"https://169.254.169.254:{port}/latest": "not a public address",
            "file:///etc/passwd": "could not be fetched|only https",
            "ftp://example.org/x": "only https is fetched from",
        }.items():
            hub.redirect = {"someone/style/x.safetensors": address}
            with pytest.raises(SeeSRError, match=words):
                pull(manager, "someone/style")
        with pytest.raises(TimeoutError):
            secret.accept()
    hub.redirect = {"someone/style/x.safetensors": f"{hub.address}/someone/style/other"}
    hub.files["someone/style/other"] = LORA
    assert pull(manager, "someone/style:x.safetensors").name == "x", "within the hub it goes on"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://example.org/x.safetensors", "is of http; only https is fetched from"),
        ("https://127.0.0.1/x.safetensors", "not a public address"),
        ("https://user:secret@[::1]/x.safetensors?token=secret", "::1 is ::1, which is not a public address"),
        ("https://a b/x.safetensors", "is not an address"),
        ("https://host:port/x.safetensors", "is not an address"),
        ("gopher://example.org/x", "is of gopher"),
    ],
)
def test_addresses_of_other_kinds_are_refused(manager: ModelManager, hub: Hub, address: str, words: str) -> None:
    with pytest.raises(AddressError, match=words) as caught:
        pull(manager, address, sha256="0" * 64)
    assert "secret" not in str(caught.value)
    with pytest.raises(OptionError, match="an address is fetched only with the SHA-256"):
        parse_source(address)


def test_a_name_is_looked_up_once_and_that_is_connected_to(manager: ModelManager) -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"]]
    asked = list[str]()

    def resolve(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers.pop(0)]

    connected = list[tuple[str, int]]()

    class Stop(OSError):
        pass

    def connect(place: tuple[str, int], timeout: float | None) -> socket.socket:
        connected.append(place)
        raise Stop("stopped by the test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", connect)
        with pytest.raises(OSError, match="stopped by the test"):
            AddressRules(resolve=resolve).connect(("rebinding.example", 443), 1)
    assert (asked, connected) == (["rebinding.example"], [("93.184.216.34", 443)])
    with pytest.raises(AddressError, match="rebinding.example is 127.0.0.1"):
        AddressRules(resolve=resolve).connect(("rebinding.example", 443), 1)


def test_a_licence_is_shown_and_its_acceptance_recorded_once_for_all(hub: Hub, manager: ModelManager, cache: Cache) -> None:
    hub.files = {"someone/style/a.safetensors": LORA, "someone/style/b.safetensors": LORA}
    hub.card = {"license": "openrail", "license_link": "https://example.org/licence"}
    with pytest.raises(WeightsError, match=r"under the licence openrail; read it at https://example.org/licence, then"):
        pull(manager, "someone/style:a.safetensors")
    assert hub.fetched("someone/style/a.safetensors") == 0
    pull(manager, "someone/style:a.safetensors", accepted=True, by="ann")
    assert pull(manager, "someone/style:b.safetensors").licence == "openrail", "it was accepted before"
    record = cache.licences.records.read()["openrail"]
    assert (record["by"], record["page"]) == ("ann", "https://example.org/licence")


def test_repositories_without_a_model_are_refused(hub: Hub, manager: ModelManager) -> None:
    hub.files = {"someone/old/model.ckpt": b"pickle", "someone/two/a.safetensors": b"", "someone/two/b.safetensors": b""}
    hub.files |= {f"someone/half/{name}": b"{}" for name in ("model_index.json", "unet/diffusion_pytorch_model.bin")}
    for what, words in {
        "someone/old": "has no safetensors file, and no other is read: model.ckpt",
        "someone/two": r"has several safetensors files; add :FILE to take one: a.safetensors, b.safetensors",
        "someone/half": "has no text_encoder/model.safetensors, and no other file is read",
        "someone/none": r"someone/none could not be looked up at http://127.0.0.1:\d+: the server answered 404",
        "someone/two:c.safetensors": "has no file 'c.safetensors'; it has: a.safetensors, b.safetensors",
    }.items():
        with pytest.raises(WeightsError, match=words):
            pull(manager, what)
    for what in ("nothing", "a/b/c", "../../etc", "someone/x:y.ckpt", ""):
        with pytest.raises(OptionError, match="unknown model"):
            parse_source(what)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "x" * 101, "a\nb", "-x", "C:x"])
def test_names_lead_nowhere_else(hub: Hub, manager: ModelManager, name: str) -> None:
    hub.files = {"someone/style/x.safetensors": LORA}
    plan = manager.plan(parse_source("someone/style"))
    with pytest.raises(OptionError, match="cannot be one of a model"):
        manager.pull(Plan(plan.source, name, None, plan.files, is_folder=False))
    assert not manager.models.exists()


def test_the_catalogue_is_whole(manager: ModelManager) -> None:
    entries = manager.catalogue()
    assert len({entry.name for entry in entries}) == len(entries) >= 4
    for entry in entries:
        assert parse_source(entry.name) == entry
        assert entry.repository
        assert entry.revision
        assert len(entry.revision) == 40
        assert entry.licence_page.startswith("https://")
        assert isinstance(entry, ModelSource)
