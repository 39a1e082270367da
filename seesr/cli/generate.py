"""`seesr generate`: makes pictures from a prompt, from another picture, or in a part of one."""

from __future__ import annotations

import json
import secrets
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from seesr.cli.console import EXIT_INTERRUPTED, print_record, print_status, progress_bars
from seesr.cli.flags import (
    CompiledFlag,
    DeviceFlag,
    DtypeFlag,
    JsonFlag,
    LowvramFlag,
    MedvramFlag,
    MemoryLimitFlag,
    ModelsFromFlag,
    NoOptimizationsFlag,
    use_models_from,
    with_generation_option_flags,
    with_save_option_flags,
)
from seesr.cli.inputs import plan_outputs
from seesr.cli.read import read_both
from seesr.errors import OptionError, OutputError
from seesr.generation.controls import PREPROCESSORS, ControlUnit
from seesr.generation.like import values_from_infotext, values_from_settings
from seesr.generation.options import GenerationOptions
from seesr.images.encoded import EncodedImage
from seesr.jobs import GenerationRequest, GenerationTask, content_hash, control_units, run_job
from seesr.options import Limits, SaveOptions

if TYPE_CHECKING:
    from seesr.generation.generator import Generator
    from seesr.generation.result import GenerationResult

Value = TypeVar("Value")


@with_generation_option_flags("prompt", "styles", "loras", "outpaint")
@with_save_option_flags
def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What the picture shows, in the A1111 prompt syntax.")] = "",
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File, or folder for several pictures.")],
    image: Annotated[Path | None, typer.Option(help="Picture to begin from.")] = None,
    mask: Annotated[Path | None, typer.Option(help="With --image: what is white in it is painted anew.")] = None,
    outpaint: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(metavar="LEFT TOP RIGHT BOTTOM", help="With --image: pixels that are added on each side."),
    ] = None,
    style: Annotated[
        list[str] | None, typer.Option(help="Name of a style in styles.csv of the data folder; may be given several times.")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:WEIGHT", help="LoRA in models/loras of the data folder; may be given several times."),
    ] = None,
    controlnet: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:WEIGHT[:START[:END]]]",
            help="ControlNet in models/controlnet of the data folder, its weight, and between which shares of the steps it "
            "steers; may be given several times.",
        ),
    ] = None,
    control_image: Annotated[
        list[Path] | None, typer.Option(help="Picture that it steers by: one for each --controlnet, or one for all.")
    ] = None,
    preprocessor: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What is made of it: {', '.join(PREPROCESSORS)}; by default none; one for each --controlnet, or for all."
        ),
    ] = None,
    values: dict[str, Any],
    like: Annotated[Path | None, typer.Option(help="Take the settings of this picture; other flags change them.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="pictograms, full, folder, safetensors file or name in models/checkpoints; by default SEESR_CHECKPOINT, "
            "else full if cached."
        ),
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="VAE in place of the checkpoint's: folder, safetensors file or name in models/vae.")
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option(help="epsilon or v_prediction, where the checkpoint does not say what its UNet predicts."),
    ] = None,
    safety_checker: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a safety checker, which blurs what it flags; by default SEESR_SAFETY_CHECKER, else none."
        ),
    ] = None,
    models_from: ModelsFromFlag = None,
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    memory_limit: MemoryLimitFlag = None,
    compiled: CompiledFlag = False,
    lowvram: LowvramFlag = False,
    medvram: MedvramFlag = False,
    no_optimizations: NoOptimizationsFlag = False,
    save_options: SaveOptions,
    overwrite: Annotated[bool, typer.Option(help="Replace output files that exist.")] = False,
    as_json: JsonFlag = False,
    dry_run: Annotated[bool, typer.Option(help="Say which memory plan it takes and about how long; make nothing.")] = False,
) -> None:
    """Make pictures."""
    use_models_from(models_from)
    several = {"outpaint": outpaint, "styles": tuple(style or ()), "loras": tuple(lora or ())}
    values |= {name: value for name, value in several.items() if value}
    settings, infotext = read_both(like) if like is not None else (None, None)
    options = _options(prompt, values, settings, infotext)
    models = {"checkpoint": checkpoint, "vae": vae, "prediction": prediction}
    controls = _controls(controlnet or [], control_image or [], preprocessor or [])
    request, pictures = _request(options, models, image, mask, controls)
    targets = plan_outputs(output, str(options.seed), options.count, save_options.format, overwrite)
    for target, source in product(targets, (image, mask, like, *(unit.image for unit in controls))):
        if source is not None and target.exists() and target.samefile(source):
            raise OutputError(f"{target} is an input itself; choose another output.")
    tiling = lowvram, medvram, no_optimizations
    generator = _load(context, models, device, dtype, memory_limit, *tiling, compiled, safety_checker)
    print_status(f"checkpoint: {generator.checkpoint.name}, on {generator.engine.device}")
    if settings and settings.get("weights_digest") != generator.checkpoint.digest:
        print_status(f"{like} was made with {settings.get('weights')}; this will be another picture.")
    if settings and settings.get("controls") and not controls:
        print_status(f"{like} was made with ControlNet; give it and its picture with --controlnet and --control-image.")
    if dry_run:
        begun, masked = (pictures.get(name or "") for name in (request.image, request.mask))
        forecast = generator.forecast(options, begun, masked, control_units(request, pictures))
        print(json.dumps(forecast) if as_json else _as_sentence(forecast))
        return
    try:
        with progress_bars() as bars:
            current = bars.add_task("", total=None)

            def progress(stage: str, done: int, total: int) -> None:
                bars.update(current, description=stage, completed=done, total=total)

            for result, target in zip(run_job(generator, request, pictures, progress), targets, strict=True):
                _write(result, target, save_options, overwrite)
                _report(result, target, as_json)
    except KeyboardInterrupt:
        print_status("interrupted; finished pictures are complete.")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _options(
    prompt: str, values: dict[str, Any], settings: dict[str, Any] | None, infotext: str | None
) -> GenerationOptions:
    """The options of the flags, and where these say nothing those of a picture's settings or infotext."""
    if settings is not None and "task" in settings:
        values = values_from_settings(settings) | values
    elif settings is not None or infotext is not None:
        values = values_from_infotext(infotext or "") | values
    if prompt:
        values["prompt"] = prompt
    # Drawn here, so that the names of the files are known before the work.
    if values.get("seed") in (None, -1):
        values["seed"] = secrets.randbits(32)
    return GenerationOptions.make(**values)


def _controls(names: list[str], images: list[Path], preprocessors: list[str]) -> list[ControlUnit[Path]]:
    """The units of ControlNet, of which pictures and preprocessors are as many or one for all."""
    if not names:
        if images or preprocessors:
            raise OptionError("--control-image and --preprocessor are for a ControlNet: give one with --controlnet.")
        return []
    images = _for_each("--control-image", images, len(names))
    preprocessors = _for_each("--preprocessor", preprocessors or ["none"], len(names))
    return [ControlUnit.parse(*unit) for unit in zip(names, images, preprocessors, strict=True)]


def _for_each(flag: str, values: list[Value], count: int) -> list[Value]:
    if len(values) not in (1, count):
        raise OptionError(
            f"{flag} is given {len(values)} times and --controlnet {count}; give one for each, or one for all."
        )
    return values * count if len(values) == 1 else values


def _request(
    options: GenerationOptions,
    models: dict[str, str | None],
    image: Path | None,
    mask: Path | None,
    controls: list[ControlUnit[Path]],
) -> tuple[GenerationRequest, dict[str, bytes]]:
    """The job, and its pictures by content hash."""
    if image is None and (mask is not None or options.outpaint):
        raise OptionError("--mask and --outpaint change a picture: give it with --image.")
    if mask is not None and options.outpaint:
        raise OptionError("give --mask or --outpaint, not both.")
    pictures = dict[str, bytes]()

    def named(path: Path) -> str:
        content = EncodedImage.read(path, Limits.from_environment()).content
        pictures[content_hash(content)] = content
        return content_hash(content)

    names = {name: named(path) for name, path in (("image", image), ("mask", mask)) if path is not None}
    units = tuple(unit.with_image(named(unit.image)) for unit in controls)
    task: GenerationTask = "inpainting" if mask else "image to image" if image else "text to image"
    request = GenerationRequest(
        task=task,
        options=options,
        checkpoint=models["checkpoint"],
        vae=models["vae"],
        prediction=models["prediction"],
        image=names.get("image"),
        mask=names.get("mask"),
        controls=units,
    )
    return request, pictures


def _load(
    context: typer.Context,
    models: dict[str, str | None],
    device: str,
    dtype: str,
    memory_limit: int | None,
    lowvram: bool,
    medvram: bool,
    no_optimizations: bool,
    compiled: bool,
    safety_checker: Path | None,
) -> Generator:
    from seesr.generation.generator import Generator
    from seesr.job_runner import WorkerSettings

    vae_tile = WorkerSettings(lowvram=lowvram, medvram=medvram, no_optimizations=no_optimizations).vae_tile
    load = context.obj or Generator.load
    on = {"device": device, "dtype": dtype, "memory_limit": memory_limit, "sequential": lowvram, "compiled": compiled}
    return load(**models, **on, vae_tile=vae_tile, safety_checker=safety_checker)


def _write(result: GenerationResult, target: Path, options: SaveOptions, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise OutputError(f"{target} was created in the meantime and was not replaced; use --overwrite to replace it.")
    result.save(target, options)


def _report(result: GenerationResult, target: Path, as_json: bool) -> None:
    if as_json:
        print_record({"output": str(target), **result.record()})
        return
    notes = "".join(f"; {note}" for note in result.notes)
    size = f"{result.image.width}x{result.image.height}"
    print_status(f"{target}: {size}, seed {result.seed}, {sum(result.seconds.values()):.1f} s{notes}")


def _as_sentence(forecast: dict[str, Any]) -> str:
    pictures, size = forecast["pictures"], f"{forecast['width']}x{forecast['height']}"
    needs = f"about {forecast['memory'] / 1e9:.2f} GB beside the weights and {forecast['seconds']:.0f} s"
    return f"{pictures} picture{'s' if pictures > 1 else ''} of {size}, memory plan {forecast['plan']}: {needs}"
