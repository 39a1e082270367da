"""Files that would run code when they are unpickled: none is, whatever it is called and wherever it comes from.

The samples are of the kinds that picklescan and fickling look for; they are built here.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hub import Hub

from seesr.weights.cache import Cache

CALLS = {
    "os.system": b"cos\nsystem\n",
    "builtins.eval": b"cbuiltins\neval\n",
    "builtins.exec": b"c__builtin__\nexec\n",
    "subprocess": b"csubprocess\ngetoutput\n",
    "runpy": b"crunpy\nrun_path\n",
    "webbrowser": b"cwebbrowser\nopen\n",
    "bdb, unknown to many scanners": b"cbdb\nBdb\n",
    "pip": b"cpip\nmain\n",
}
WATCH = """
import sys
touched = []
sys.addaudithook(lambda event, arguments: touched.append((event, repr(arguments))) if event == "pickle.find_class" else None)
from pathlib import Path
from seesr.errors import SeeSRError
from seesr.models.catalogue import parse_source
from seesr.models.contents import inspect
from seesr.models.manager import ModelManager
data, samples = Path(sys.argv[1]), Path(sys.argv[2])
manager = ModelManager(data, others=[samples / "webui"], pause=0.01)
said = {}
for path in sorted(samples.glob("*.*")):
    try:
        manager.add(path)
        said[path.name] = "taken"
    except SeeSRError as error:
        said[path.name] = str(error)
for name in sys.argv[3:]:
    try:
        manager.pull(manager.plan(parse_source(name)), accepted=True)
        said[name] = "taken"
    except SeeSRError as error:
        said[name] = str(error)
listed = {info.name: info.problem for info in manager.list_models()}
list(manager.verify())
import json
modules = [name for name in ("torch", "diffusers", "transformers") if name in sys.modules]
print(json.dumps({"said": said, "listed": listed, "touched": touched, "modules": modules}))
"""


def payload(call: bytes, marker: Path) -> bytes:
    """A pickle of protocol 0 that calls a function with a command that makes a file."""
    return call + b"(S'touch " + str(marker).encode() + b"'\ntR."


def zipped(content: bytes, name: str = "archive/data.pkl") -> bytes:
    """As torch.save writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    """As torch.save wrote it in its first years."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("pickle")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def numpy_file(content: bytes) -> bytes:
    """A .npy file of objects, whose data are a pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return buffer.getvalue() + content


def headed(header: bytes, tail: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + tail


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of such files, and the file that would be made if one were run."""
    folder, marker = tmp_path / "samples", tmp_path / "marker"
    folder.mkdir()
    files = dict[str, bytes]()
    for number, call in enumerate(CALLS.values()):
        content = payload(call, marker)
        for form, made in {
            "raw": content,
            "zip": zipped(content),
            "tar": tarred(content),
            "npy": numpy_file(content),
        }.items():
            suffix = ("safetensors", "ckpt", "pt", "bin")[number % 4]
            files[f"{form}{number}.{suffix}"] = files[f"{form}{number}.safetensors"] = made
        # A header of safetensors before it, and within.
        files[f"tail{number}.safetensors"] = headed(b'{"__metadata__":{}}', content)
    files["protocol4.safetensors"] = pickle.dumps([b"x" * 100], protocol=4)
    files["deep.safetensors"] = headed(b'{"a":' * 50_000)
    files["huge.safetensors"] = struct.pack("<Q", 1 << 40) + b"{}"
    files["negative.safetensors"] = headed(
        json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode(), b"\0" * 4
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    theirs = folder / "webui" / "models" / "Lora"
    theirs.mkdir(parents=True)
    (theirs / "theirs.safetensors").write_bytes(zipped(payload(CALLS["os.system"], marker)))
    (theirs / "old.pt").write_bytes(payload(CALLS["os.system"], marker))
    return folder, marker


def test_no_pickle_reaches_an_unpickler(hub: Hub, cache: Cache, samples: tuple[Path, Path], tmp_path: Path) -> None:
    folder, marker = samples
    hub.files = {
        f"someone/x{number}/model.safetensors": path.read_bytes() for number, path in enumerate(folder.glob("*.s*"))
    }
    wanted = [path.rpartition("/")[0] for path in hub.files]
    command = [sys.executable, "-c", WATCH, tmp_path / "data", folder, *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["touched"] == []
    assert result["modules"] == []
    assert not marker.exists()
    assert len(result["said"]) == len(list(folder.glob("*.*"))) + len(wanted) > 60
    for name, sentence in result["said"].items():
        assert "refused" in sentence or "is not a safetensors file" in sentence, (name, sentence)
    assert set(result["listed"]) == {"theirs", "old"}
    assert all(result["listed"].values())
    assert not list((tmp_path / "data" / "models").glob("*/*.safetensors"))


def test_a_large_pickle_is_refused_by_its_first_bytes(hub: Hub, cache: Cache, tmp_path: Path) -> None:
    from seesr import WeightsError
    from seesr.models.catalogue import parse_source
    from seesr.models.manager import ModelManager

    path = "someone/x/model.safetensors"
    hub.files, hub.length = {path: payload(CALLS["os.system"], tmp_path / "marker") * 20_000}, {}
    manager, told = ModelManager(tmp_path / "data", others=(), pause=0.01), list[int]()
    with pytest.raises(WeightsError, match="it is not a safetensors file, whatever its name"):
        manager.pull(manager.plan(parse_source("someone/x")), on_bytes=lambda done, total: told.append(done))
    assert told == []
    assert not list(manager.models.rglob("*.part"))
