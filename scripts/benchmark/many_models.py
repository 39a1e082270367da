"""How long the program takes to start, and to list models, beside thousands of model files.

python -m scripts.benchmark.many_models --files 5000
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

IMPORTS = "import sys; from pathlib import Path; from seesr.models.manager import ModelManager"
START = f"{IMPORTS}; ModelManager(Path(sys.argv[1]))"
LIST = f"{START}.list_models()"
FIND = "from seesr.generation.library import find_known_model; find_known_model('style 17', 'loras')"


def main(files: Annotated[int, typer.Option(help="Model files, a few KB each, in 50 folders.")] = 5000) -> None:
    """Prints seconds as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        empty = _seconds(START, data)
        for number in range(files):
            _write_lora(data / "models" / "loras" / f"folder {number % 50}" / f"style {number}.safetensors")
        seconds = {
            "start without files": empty,
            "start": _seconds(START, data),
            "first list": _seconds(LIST, data),
            "next list": _seconds(LIST, data),
            "find one": _seconds(FIND, data),
        }
    print(json.dumps({"files": files, "seconds": seconds}))


def _write_lora(path: Path) -> None:
    """A safetensors file with the names and shapes of a small LoRA, and zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries, end = dict[str, object](), 0
    for layer in range(16):
        name = f"lora_unet_down_blocks_{layer}_attn2_to_k.lora_down.weight"
        entries[name] = {"dtype": "F16", "shape": [1, 1024], "data_offsets": [end, end + 2048]}
        end += 2048
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))


def _seconds(program: str, data: Path) -> float:
    environment = os.environ | {"SEESR_DATA": str(data)}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, data], env=environment, check=True)
    return round(time.perf_counter() - began, 2)


if __name__ == "__main__":
    typer.run(main)
