"""Records what a set of upscalings gives, bit for bit, and compares it after the code was reshaped.

    python scripts/check_unchanged.py record before.json     before the first change
    python scripts/check_unchanged.py compare before.json    after the last one, on the same machine

Uses only the Python API that the README names, so that it runs on both sides of any move. Exit code 1: a picture, a size, a
tag, a plan or a setting differs. Sentences of notes may change: they are shown, and do not count.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from seesr import Options, Upscaler

if TYPE_CHECKING:
    from seesr.result import UpscaleResult

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "tests" / "images"
RENAMED_STAGES = {"decode": "read", "pixels": "vae_decode"}
"""Names that stages had until version 0.1."""


def crop(name: str, box: tuple[int, int, int, int]) -> Image.Image:
    return Image.open(IMAGES / name).convert("RGB").crop(box)


def memory_runs_out(times: int) -> Callable[[str, int, int], None]:
    """A progress function that makes each of the first `times` attempts fail when it is about to encode."""
    left = times

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal left
        if stage == "encode" and left:
            left -= 1
            raise torch.OutOfMemoryError("injected")

    return progress


def transparent(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(image.getchannel("G").point([0 if value < 90 else value for value in range(256)]))
    return image


def cases(upscaler: Upscaler) -> Iterator[tuple[str, list[UpscaleResult]]]:
    """(name, results) of everything that should stay as it is, with the embedded model."""
    cat, coffee = crop("chelsea.png", (150, 80, 214, 128)), crop("coffee.png", (200, 100, 260, 160))
    wide = crop("rocket.jpg", (200, 100, 330, 150))

    def one(name: str, image: Any = cat, progress: Any = None, **values: Any) -> tuple[str, list[UpscaleResult]]:
        return name, [upscaler.upscale(image, Options.make(**{"seed": 3, **values}), progress)]

    yield one("whole, 1 step", steps=1)
    yield one("whole, steps left out")
    yield one("whole, 4 steps", preset="quality")
    yield one("speed", preset="speed")
    yield one("memory", coffee, preset="memory", scale=4.5)
    yield one("tiled diffusion", wide, tile=48, tile_overlap=16, steps=2)
    yield one("tiled vae", coffee, vae_tile=24, steps=1)
    yield one("tags of tiles", coffee, scale=4.5, tile=48, tile_overlap=16, tile_tags=True, steps=1)
    yield one("kds", steps=2, kds=True, kds_particles=3, scale=2)
    yield one("kds in tiles", wide, steps=2, kds=True, kds_particles=2, kds_bandwidth=4.0, kds_patch=3, tile=48, scale=2)
    for fix in ("wavelet", "adain", "none"):
        yield one(f"colour fix {fix}", color_fix=fix, steps=1)
    yield one("sharpened", sharpen=0.7, scale=2.37, steps=1)
    yield one("prompt without tags", prompt="a cat", tags=False, conditioning_scale=0.6, steps=1)
    yield one("reduced", crop("astronaut.png", (0, 0, 400, 300)), max_side=210, steps=1)
    yield one("alpha", transparent(coffee), steps=1, scale=2)
    yield one("grey", cat.convert("L"), steps=1, scale=2)
    yield one("a file", IMAGES / "rocket.jpg", steps=1, max_side=320)
    yield one("one pixel", Image.new("RGB", (1, 1), "teal"), steps=1)
    batch = [cat, cat.transpose(Image.Transpose.ROTATE_180), cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT), coffee]
    yield "batch", upscaler.upscale_many(batch, Options(steps=2, seed=3, scale=2), together=3)
    for times in (1, 2, 3):
        yield one(f"fallback step {times}", coffee, memory_runs_out(times), scale=4.5, steps=1)
    parts = batch[:2]
    yield "batch out of memory", upscaler.upscale_many(parts, Options(steps=1, seed=3), memory_runs_out(1), together=2)


def others() -> Iterator[tuple[str, list[UpscaleResult]]]:
    """The same with other weights, precisions and ways to load."""
    cat = crop("chelsea.png", (150, 80, 198, 120))
    for name, values in (
        ("sequential", {"sequential": True}),
        ("bfloat16", {"dtype": "bfloat16"}),
    ):
        loaded = Upscaler.load(**{"weights": "tiny", "device": "cpu", **values})
        yield name, [loaded.upscale(cat, scale=2, steps=2, seed=3)]


def describe(result: UpscaleResult) -> dict[str, Any]:
    """What must stay: pixels and what their file says, as digests and values."""
    stages = [RENAMED_STAGES.get(stage, stage) for stage in result.seconds]
    return {
        "pixels": hashlib.sha256(result.image.tobytes()).hexdigest(),
        "mode": result.image.mode,
        "profile": hashlib.sha256(result.image.info.get("icc_profile") or b"").hexdigest()[:12],
        "exif": hashlib.sha256(result.image.info.get("exif") or b"").hexdigest()[:12],
        "tags": {tag.name: tag.confidence for tag in result.tags},
        "sizes": [
            list(size) for size in (result.sizes.input, result.sizes.output, result.sizes.working, result.sizes.padded)
        ],
        "rung": result.rung,
        "attempts": [attempt.rung for attempt in result.attempts],
        "vae": result.vae,
        "stages": stages,
        "settings": result.settings(),
        "notes": list(result.notes),
    }


def collect() -> dict[str, list[dict[str, Any]]]:
    found = {}
    for name, results in [*cases(Upscaler.load("tiny", "cpu", "float32")), *others()]:
        found[name] = json.loads(json.dumps([describe(result) for result in results]))
        print(f"{name}: {found[name][0]['pixels'][:16]} {found[name][0]['rung']}", flush=True)
    return found


def compare(before: dict[str, list[dict[str, Any]]], now: dict[str, list[dict[str, Any]]]) -> int:
    """Prints every difference; the number of those that count."""
    count = 0
    for name in before:
        for number, (old, new) in enumerate(zip(before[name], now[name], strict=True)):
            new["settings"] = {key: new["settings"].get(key) for key in old["settings"]}  # options may be added
            for key in old:
                if old[key] != new[key]:
                    print(f"{name}[{number}].{key}: {old[key]} -> {new[key]}")
                    count += key != "notes"
    return count


def main() -> None:
    action, path = sys.argv[1], Path(sys.argv[2])
    found = collect()
    if action == "record":
        path.write_text(json.dumps(found, indent=1))
        return
    differences = compare(json.loads(path.read_text()), found)
    print(f"{sum(map(len, found.values()))} pictures of {len(found)} cases: {differences} differences that count")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
