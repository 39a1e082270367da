"""`seesr evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated
from zipfile import BadZipFile

import typer
from rich.console import Console

from seesr.cli.console import say
from seesr.cli.flags import Device, Dtype, MemoryLimit, Weights, takes_options
from seesr.errors import OptionError, OutputError
from seesr.evaluation import BICUBIC, OURS
from seesr.files import whole_file
from seesr.options import Options
from seesr.weights.cache import Cache

NIQE_FILE = "niqe_pris_params.npz"


@takes_options(without=("scale", "max_side"), scale=4.0, seed=0)
def evaluate(
    *,
    truth: Annotated[Path | None, typer.Option(help="Folder of sharp pictures; inputs are made from them by 1/4.")] = None,
    pairs: Annotated[tuple[Path, Path] | None, typer.Option(metavar="LOW HIGH", help="Folders of inputs, truths.")] = None,
    degrade: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="With --truth: blur, resize, noise, sharpening and JPEG from this seed."),
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="Outputs of another method, named like the truths.")
    ] = None,
    options: Options,
    memory_limit: MemoryLimit = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    weights: Weights = None,
    niqe_model: Annotated[Path | None, typer.Option(help=f"{NIQE_FILE}; without it the one in the cache, if any.")] = None,
    save: Annotated[Path | None, typer.Option(help="Folder for the outputs, as PNG.")] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with crops of the best and worst.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Weigh results against ground truth and bicubic: PSNR-Y, SSIM-Y, ST-LPIPS, NIQE, grid, speed."""
    if (truth is None) == (pairs is None) or (degrade is not None and truth is None):
        raise OptionError("give either --truth FOLDER (perhaps with --degrade SEED) or --pairs LOW HIGH.")
    others = dict(_named_folder(text) for text in against or [])
    if save is not None and save.resolve() in {folder.resolve() for folder in [*(pairs or [truth]), *others.values()]}:
        raise OptionError(f"--save is {save}, whose pictures are measured; give another folder for the outputs.")
    if page is not None and page.is_dir():
        raise OptionError(f"--html is {page}, a folder; give a file.")
    try:
        from seesr.evaluation import evaluate as weigh
        from seesr.evaluation import report
        from seesr.evaluation.metrics import Scales
        from seesr.evaluation.niqe import NIQE
        from seesr.evaluation.stlpips import INSTALL_HINT, STLPIPS
    except ModuleNotFoundError as error:
        hint = "run it by scripts/start_seesr.sh evaluate, or pip install '.[evaluate]' in the clone"
        raise OptionError(f"evaluating needs {error.name}: {hint}.") from error
    from seesr.machine.device import dtype_name
    from seesr.upscaler import Upscaler

    perceptual = STLPIPS("alex").eval() if STLPIPS.is_installed() else None
    pristine = niqe_model or Cache.default().root / "metrics" / NIQE_FILE
    if niqe_model is not None and not niqe_model.is_file():
        raise OptionError(f"{niqe_model} does not exist.")
    try:
        niqe = NIQE.load(pristine) if pristine.is_file() else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise OptionError(f"{pristine} is not NIQE's pristine model ({error}).") from error
    for missing, hint in ((perceptual is None, INSTALL_HINT), (niqe is None, f"NIQE needs {pristine}")):
        if missing:
            say(f"left out: {hint}; scripts/evaluate.py fetches what is needed.")

    weigh.require_outputs(others.values(), truth or pairs[1])
    upscaler = Upscaler.load(weights, device, dtype, memory_limit=memory_limit)
    cases = weigh.from_truth(truth, degrade) if truth else weigh.from_pairs(*pairs)
    scales, with_crops = Scales(perceptual, niqe), page is not None
    settings = {
        "weights": upscaler.weights.name,
        "device": str(upscaler.engine.device),
        "dtype": dtype_name(upscaler.engine.dtype),
        "degradation": "pairs" if pairs else "bicubic" if degrade is None else f"seed {degrade}",
        **upscaler.with_defaults(options).model_dump(exclude_none=True),
    }
    rows, complete = [], False
    try:
        for row in weigh.evaluate(cases, upscaler, options, scales, others, say, save, with_crops):
            rows.append(row)
        complete = True
    finally:
        if rows:
            if not complete:
                count = f"{len(rows)} picture{'s' * (len(rows) > 1)}"
                say(f"stopped after {count}; the figures are of what was weighed until then.")
            if as_json:
                print(json.dumps(report.as_record(rows, settings, complete)))
            else:
                Console(width=None if sys.stdout.isatty() else 160).print(report.as_table(rows))
    if page:
        try:
            with whole_file(page) as temporary:
                temporary.write_text(report.as_page(rows, settings), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{page} cannot be written: {error.strerror or error}.") from error


def _named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or name in (OURS, BICUBIC) or not Path(folder).is_dir():
        raise OptionError(f"--against is {text!r}; give NAME=FOLDER with a new name and a folder that exists.")
    return name, Path(folder)
