"""Enlarges pictures four times with a network in ncnn's format, on the CPU: for `scripts/compare_upscalers.py` alone.

    VENV/bin/python scripts/run_ncnn.py MODEL.param MODEL.bin THREADS < LIST

It runs in an environment of its own with `ncnn`, `numpy` and `pillow`, and imports nothing of this project. Each line of the
list is the path of an input, a tab, and that of the output; for each a line of JSON with the seconds is printed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ncnn  # pyright: ignore[reportMissingImports] # in an environment of its own
import numpy as np
from PIL import Image

SCALE = 4
PADDING = 10
"""Pixels around a tile."""
TILE = 200
"""Longest side of a tile."""


def load(param: str, weights: str, threads: int) -> Any:
    """A network with the blobs `data` and `output`, RGB in 0..1."""
    network = ncnn.Net()
    network.opt.use_vulkan_compute = False
    network.opt.num_threads = threads
    if network.load_param(param) or network.load_model(weights):
        raise SystemExit(f"{param} and {weights} are not a network that ncnn can read.")
    return network


def enlarge(network: Any, pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB `(H, W, 3)`, four times as large, in tiles."""
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), mode="edge")
    result = np.empty((SCALE * height, SCALE * width, 3), np.uint8)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            tile = padded[top : bottom + 2 * PADDING, left : right + 2 * PADDING].transpose(2, 0, 1)
            # By name: ncnn's matrices use the memory of the array, and do not keep it alive.
            values = np.ascontiguousarray(tile, dtype=np.float32) / 255
            extractor = network.create_extractor()
            extractor.input("data", ncnn.Mat(values))
            _, output = extractor.extract("output")
            enlarged = np.array(output).transpose(1, 2, 0)
            inner = enlarged[SCALE * PADDING : -SCALE * PADDING, SCALE * PADDING : -SCALE * PADDING]
            result[SCALE * top : SCALE * bottom, SCALE * left : SCALE * right] = (inner * 255).round().clip(0, 255)
    return result


def main() -> None:
    param, weights, threads = sys.argv[1:]
    network = load(param, weights, int(threads))
    for line in sys.stdin:
        source, target = line.rstrip("\n").split("\t")
        pixels = np.asarray(Image.open(source).convert("RGB"))
        began = time.perf_counter()
        enlarged = enlarge(network, pixels)
        seconds = time.perf_counter() - began
        temporary = Path(target).with_suffix(".part.png")
        Image.fromarray(enlarged).save(temporary)
        temporary.rename(target)
        print(json.dumps({"target": target, "seconds": round(seconds, 3)}), flush=True)


if __name__ == "__main__":
    main()
