"""The examples of docs/studio-api.md, run word for word against a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PHOTOS, ROOT
from PIL import Image
from studio_server import serving

ADDRESS = "http://127.0.0.1:7860"


@pytest.mark.parametrize("language", ["python", "bash"])
def test_example(tmp_path: Path, language: str) -> None:
    (code,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "studio-api.md").read_text(), re.DOTALL)
    assert ADDRESS in code
    Image.open(PHOTOS / "chelsea.png").convert("RGB").save(tmp_path / "photo.jpg")
    with serving(tmp_path / "studio") as served:
        code = code.replace(ADDRESS, served.address)
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
        assert shutil.which(command[0]), f"Debian's package {command[0]} is needed"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=tmp_path, check=True, timeout=120, env=environment)
    pictures = [*tmp_path.glob("*.png")]
    assert len(pictures) == {"python": 2, "bash": 1}[language]
    for picture in pictures:
        assert Image.open(picture).size == (64, 64)  # what the stand-in draws
