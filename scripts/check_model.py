"""What `seesr evaluate` does not tell of weights: cleaner and autoencoder alone, use of tags, colours, tagger.

    ./scripts/start_seesr.sh python -m scripts.check_model cleaner PHOTOS
    ./scripts/start_seesr.sh python -m scripts.check_model autoencoder TRUTHS
    ./scripts/start_seesr.sh python -m scripts.check_model semantics LOW HIGH
    ./scripts/start_seesr.sh python -m scripts.check_model colour LOW
    ./scripts/start_seesr.sh python -m scripts.check_model tagger TAGGED

Each takes `--weights`. `autoencoder` and `semantics` need what `evaluate` fetches.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

from scripts.training.photographs import SCALE, picture_paths, read_picture, read_pictures
from scripts.training.tag_metrics import average_precision, held_out_confidences, print_report
from scripts.training.tagged_pictures import TaggedPictures
from scripts.training.thresholds import given_by_halves
from seesr import Upscaler
from seesr.autoencoder.vae import decode, encode
from seesr.cleaner import clean
from seesr.evaluation.degradation import crop_to_multiple, downscale_bicubic
from seesr.evaluation.evaluate import pairs_from_folders
from seesr.evaluation.metrics import Metrics
from seesr.evaluation.stlpips import STLPIPS
from seesr.images.resize import to_image, to_tensor

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Weights = Annotated[str | None, typer.Option(help="As in `seesr upscale`.")]
WORDS = 3
"""Tags that count as what a picture shows: the most certain ones of the sharp picture."""


def _noisy(image: Image.Image, level: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, level, (image.height, image.width, 3))
    return Image.fromarray((_array(image) + noise).round().clip(0, 255).astype(np.uint8))


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


DAMAGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "nothing wrong": lambda image: image,
    "blurred by 0.8 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(0.8)),
    "noise of 3 levels": lambda image: _noisy(image, 3),
    "noise of 12 levels": lambda image: _noisy(image, 12),
    "JPEG at quality 60": lambda image: _compressed(image, 60),
}


@app.command()
def cleaner(photographs: Path, weights: Weights = None) -> None:
    """Error to the good picture, a reduced photograph, before and after cleaning what was damaged in a known way."""
    components = Upscaler.load(weights).engine.components
    if "cleaner" not in components:
        raise typer.BadParameter("these weights have no cleaner.")
    paths = picture_paths(photographs)
    table = Table("", *(path.stem for path in paths))
    for name, damage in DAMAGES.items():
        row = []
        for path in paths:
            good = downscale_bicubic(crop_to_multiple(read_picture(path), SCALE), SCALE)
            bad = damage(good)
            with torch.inference_mode():
                cleaned = to_image(clean(components["cleaner"], to_tensor(bad)))
            before, after = (np.sqrt(np.square(_array(one) - _array(good)).mean()) for one in (bad, cleaned))
            row.append(f"{before:.1f}, {after:.1f}")
        table.add_row(name, *row)
    Console(width=120).print(table)
    print("root of the mean squared error, grey levels, before and after")


@app.command()
def autoencoder(truths: Path, weights: Weights = None) -> None:
    """Encodes and decodes each picture."""
    vae, metrics = Upscaler.load(weights).engine.components["vae"], _metrics()
    figures = []
    for image in read_pictures(truths):
        truth = crop_to_multiple(image, 8)
        with torch.inference_mode():
            again = decode(vae, encode(vae, to_tensor(truth).to(vae.dtype)))
        figures.append(metrics(to_image(again), truth))
    _print_means({"autoencoder alone": figures})


@app.command()
def semantics(low: Path, high: Path, weights: Weights = None, steps: int = 1) -> None:
    """The same pictures with the right tags, those that RAM finds in the truths, with none, and with another picture's."""
    cases = list(pairs_from_folders(low, high))
    if len(cases) < 2:
        raise typer.BadParameter(f"{low} has 1 picture; there must be another, whose tags are wrong for it.")
    upscaler, metrics = Upscaler.load(weights), _metrics()
    names = [_most_certain(upscaler, case.truth) for case in cases]
    told = {
        "right tags": names,
        "no tags": [""] * len(cases),
        "wrong tags": names[len(names) // 2 :] + names[: len(names) // 2],
    }
    outputs = {
        kind: [
            upscaler.upscale(case.low, scale=SCALE, steps=steps, seed=0, tags=False, prompt=prompt).image
            for case, prompt in zip(cases, prompts, strict=True)
        ]
        for kind, prompts in told.items()
    }
    _print_means(
        {
            kind: [metrics(image, case.truth) for image, case in zip(made, cases, strict=True)]
            for kind, made in outputs.items()
        }
    )
    for kind in ("right tags", "wrong tags"):
        pairs = zip(outputs[kind], outputs["no tags"], strict=True)
        change = statistics.fmean(float(np.abs(_array(one) - _array(other)).mean()) for one, other in pairs)
        print(f"{kind} change a picture by {change:.3f} grey levels on average")


@app.command()
def colour(low: Path, weights: Weights = None) -> None:
    """Mean difference of each channel between result and input, in grey levels."""
    upscaler = Upscaler.load(weights)
    shifts = []
    for image in read_pictures(low):
        made = upscaler.upscale(image, scale=SCALE, steps=1, seed=0).image
        shifts.append(_array(made).mean(axis=(0, 1)) - _array(image).mean(axis=(0, 1)))
    print(f"largest of {len(shifts)} pictures, R G B: {np.abs(shifts).max(axis=0).round(3).tolist()}")


@app.command()
def tagger(
    tagged: Annotated[Path, typer.Argument(help="Folder with images/ and labels.tsv.")],
    weights: Weights = None,
    least: Annotated[int, typer.Option(help="Pictures with a tag from which on it gets a line.")] = 3,
) -> None:
    """Average precision, precision and recall of each tag on the held-out pictures, and of all on the same degraded.

    Precision and recall are with thresholds chosen anew on the half of the pictures that a picture is not in: those of the
    weights were chosen on all of them.
    """
    upscaler = Upscaler.load(weights)
    ram, names, data = upscaler.engine.components["ram"], upscaler.conditioner.tag_list.names, TaggedPictures.read(tagged)
    if data.tags != names:
        raise typer.BadParameter(f"the tags of {tagged} are not those of the weights.")
    labels, views = data.labels[data.held_out], held_out_confidences(ram, data)
    confidences, given = views[:, 0], given_by_halves(views, labels)[:, 0]
    table, precisions = Table("tag", "pictures", "average precision", "given", "precision", "recall"), []
    for index, name in enumerate(names):
        true, count = labels[:, index].bool(), int(given[:, index].sum())
        if not true.any():
            continue
        precisions.append(average_precision(confidences[:, index], true))
        if true.sum() >= least:
            right = int((given[:, index] & true).sum())
            share = f"{right / count:.2f}" if count else ""
            recall = f"{right / int(true.sum()):.2f}"
            table.add_row(name, str(int(true.sum())), f"{precisions[-1]:.2f}", str(count), share, recall)
    Console(width=100).print(table)
    print(f"{len(labels)} pictures: mean average precision of tags {statistics.fmean(precisions):.3f}")
    print_report(views, labels)


def _most_certain(upscaler: Upscaler, image: Image.Image) -> str:
    ram = upscaler.engine.components["ram"]
    with torch.inference_mode():
        logits = ram(to_tensor(image).to(ram.image_proj.weight))[1][0]
    return ", ".join(upscaler.conditioner.tag_list.names[index] for index in logits.topk(WORDS).indices.tolist())


def _metrics() -> Metrics:
    return Metrics(STLPIPS("alex").eval(), None)


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def _print_means(figures: dict[str, list[dict[str, float]]]) -> None:
    names = list(next(iter(figures.values()))[0])
    table = Table("", *names)
    for kind, rows in figures.items():
        table.add_row(kind, *(f"{statistics.fmean(row[name] for row in rows):.4f}" for name in names))
    Console(width=120).print(table)


if __name__ == "__main__":
    app()
