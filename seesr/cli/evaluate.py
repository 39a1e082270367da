"""`seesr evaluate`: computes the metrics of upscaled pictures against ground truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated
from zipfile import BadZipFile

import typer
from rich.console import Console

from seesr.cli.console import print_status
from seesr.cli.flags import DeviceFlag, DtypeFlag, MemoryLimitFlag, WeightsFlag, with_option_flags
from seesr.errors import OptionError, OutputError
from seesr.evaluation import BICUBIC, OURS
from seesr.files import atomic_write
from seesr.options import Options
from seesr.weights.cache import Cache

NIQE_FILE = "niqe_pris_params.npz"


@with_option_flags(exclude=("scale", "max_side"), scale=4.0, seed=0)
def evaluate(
    context: typer.Context,
    *,
    truth: Annotated[Path | None, typer.Option(help="Folder of ground truths, whose sides are reduced to 1/4.")] = None,
    pairs: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="LOW HIGH", help="Folders of inputs and ground truths.")
    ] = None,
    degrade: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="With --truth: jpeg, noise, mixed, old or camera; a number is camera by that seed."
        ),
    ] = None,
    degrade_seed: Annotated[int | None, typer.Option(min=0, help="Seed of --degrade KIND; 0 unless it is given.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Outputs of another method, named like the ground truths."),
    ] = None,
    options: Options,
    memory_limit: MemoryLimitFlag = None,
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    weights: WeightsFlag = None,
    niqe_model: Annotated[Path | None, typer.Option(help=f"{NIQE_FILE}; by default that in the cache.")] = None,
    save: Annotated[Path | None, typer.Option(help="Folder for the outputs, as PNG.")] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write an HTML page with parts of the best and worst.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare results, and bicubic's, with the ground truth: PSNR-Y, SSIM-Y, ST-LPIPS, NIQE, artefacts, speed."""
    if truth is not None and pairs is None:
        folders = (truth,)
    elif pairs is not None and truth is None and degrade is None:
        folders = pairs
    else:
        raise OptionError("give either --truth FOLDER, optionally with --degrade KIND, or --pairs LOW HIGH.")
    kind, degradation_seed = _degradation(degrade, degrade_seed)
    other_methods = dict(_named_folder(argument) for argument in against or [])
    evaluated = [*folders, *other_methods.values()]
    if save is not None and save.resolve() in {folder.resolve() for folder in evaluated}:
        raise OptionError(f"--save is {save}, which holds pictures to evaluate; give another folder for the outputs.")
    if page is not None and page.is_dir():
        raise OptionError(f"--html is {page}, a folder; give a file.")
    try:
        from seesr.evaluation import evaluate as evaluation
        from seesr.evaluation import report
        from seesr.evaluation.metrics import Metrics
        from seesr.evaluation.niqe import NIQE
        from seesr.evaluation.stlpips import INSTALL_HINT, STLPIPS
    except ModuleNotFoundError as error:
        hint = "run scripts/start_seesr.sh evaluate, or pip install '.[evaluate]' in the clone"
        raise OptionError(f"seesr evaluate needs {error.name}: {hint}.") from error
    from seesr.machine.device import dtype_name
    from seesr.upscaler import Upscaler

    perceptual = STLPIPS("alex").eval() if STLPIPS.is_installed() else None
    niqe_path = niqe_model or Cache.default().root / "metrics" / NIQE_FILE
    if niqe_model is not None and not niqe_model.is_file():
        raise OptionError(f"{niqe_model} does not exist.")
    try:
        niqe = NIQE.load(niqe_path) if niqe_path.is_file() else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise OptionError(f"{niqe_path} is not NIQE's pristine model ({error}).") from error
    for is_missing, hint in ((perceptual is None, INSTALL_HINT), (niqe is None, f"NIQE needs {niqe_path}")):
        if is_missing:
            print_status(f"left out: {hint}; scripts/evaluate.py downloads what is needed.")

    evaluation.require_outputs(other_methods.values(), folders[-1])
    upscaler = (context.obj or Upscaler.load)(weights, device, dtype, memory_limit=memory_limit)
    if len(folders) == 2:
        image_pairs = evaluation.pairs_from_folders(*folders)
    elif kind is None:
        image_pairs = evaluation.pairs_from_truths(*folders)
    else:
        image_pairs = evaluation.pairs_from_truths(*folders, degradation_seed, kind)
    metrics, with_crops = Metrics(perceptual, niqe), page is not None
    settings = {
        "weights": upscaler.weights.name,
        "weights_digest": upscaler.weights.digest,
        "device": str(upscaler.engine.device),
        "dtype": dtype_name(upscaler.engine.dtype),
        "degradation": "pairs" if pairs else "bicubic" if kind is None else f"{kind}, seed {degradation_seed}",
        **upscaler.with_defaults(options).model_dump(exclude_none=True),
    }
    pictures, complete = [], False
    try:
        arguments = image_pairs, upscaler, options, metrics, other_methods, print_status, save, with_crops
        for picture in evaluation.evaluate(*arguments):
            pictures.append(picture)
        complete = True
    finally:
        if pictures:
            if not complete:
                count = f"{len(pictures)} picture{'s' * (len(pictures) > 1)}"
                print_status(f"stopped after {count}; the metrics are of these only.")
            if as_json:
                print(json.dumps(report.as_record(pictures, settings, complete)))
            else:
                Console(width=None if sys.stdout.isatty() else 160).print(report.as_table(pictures))
    if page:
        try:
            with atomic_write(page) as temporary:
                temporary.write_text(report.as_page(pictures, settings), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{page} cannot be written: {error.strerror or error}.") from error


def _degradation(degrade: str | None, seed: int | None) -> tuple[str | None, int]:
    """The kind of degradation, None for bicubic alone, and its seed."""
    from seesr.evaluation.degradation import KINDS

    if degrade is None or degrade in KINDS:
        if degrade is None and seed is not None:
            raise OptionError(f"--degrade-seed is {seed}, and there is no --degrade: give --degrade KIND as well.")
        return degrade, seed or 0
    if not degrade.isdecimal():
        raise OptionError(f"--degrade is {degrade!r}; give {', '.join(KINDS)}, or a number, which is camera by that seed.")
    if seed is not None:
        raise OptionError(
            f"--degrade is {degrade}, a seed, and --degrade-seed is {seed}: give --degrade camera, or one seed."
        )
    return "camera", int(degrade)


def _named_folder(argument: str) -> tuple[str, Path]:
    name, _, folder = argument.partition("=")
    if not name or name in (OURS, BICUBIC) or not Path(folder).is_dir():
        raise OptionError(
            f"--against is {argument!r}; give NAME=FOLDER with a folder that exists and a name but {OURS} and {BICUBIC}."
        )
    return name, Path(folder)
