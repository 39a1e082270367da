"""`seesr generate`: makes pictures from a prompt, from another picture, or in a part of one."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seesr.cli.console import EXIT_INTERRUPTED, print_status
from seesr.cli.flags import (
    DeviceFlag,
    DtypeFlag,
    JsonFlag,
    MemoryLimitFlag,
    with_generation_option_flags,
    with_save_option_flags,
)
from seesr.cli.read import read_both
from seesr.errors import InputError, OptionError, OutputError
from seesr.generation.options import GenerationOptions
from seesr.images.save import pillow_format, save
from seesr.options import SaveOptions

if TYPE_CHECKING:
    from seesr.generation.generator import Generator
    from seesr.generation.result import GenerationResult

MEDIUM_VAE_TILE, SMALL_VAE_TILE = 48, 24
"""Latent pixels, for `--medvram` and `--lowvram`."""


@with_generation_option_flags("prompt", "styles", "outpaint")
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
    values: dict[str, Any],
    like: Annotated[Path | None, typer.Option(help="Take the settings of this picture; other flags change them.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="pictograms, full or a folder; by default SEESR_CHECKPOINT, else full if cached.")
    ] = None,
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    memory_limit: MemoryLimitFlag = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the networks' blocks at their first run.")] = False,
    lowvram: Annotated[bool, typer.Option(help="Keep only the running network on the device; small VAE tiles.")] = False,
    medvram: Annotated[bool, typer.Option(help="Run the VAE in tiles.")] = False,
    no_optimizations: Annotated[bool, typer.Option("--no-optimizations", help="Never run the VAE in tiles.")] = False,
    save_options: SaveOptions,
    overwrite: Annotated[bool, typer.Option(help="Replace output files that exist.")] = False,
    as_json: JsonFlag = False,
    dry_run: Annotated[bool, typer.Option(help="Say which memory plan it takes and about how long; make nothing.")] = False,
) -> None:
    """Make pictures."""
    options = _options(prompt, values | ({"outpaint": outpaint} if outpaint else {}), like)
    if (mask is not None or options.outpaint) and image is None:
        raise OptionError("--mask and --outpaint change a picture: give it with --image.")
    if mask is not None and options.outpaint:
        raise OptionError("give --mask or --outpaint, not both.")
    for path in (image, mask):
        if path is not None and not path.exists():
            raise InputError(f"{path} does not exist.")
    targets = _targets(output, options, save_options, overwrite)
    generator = _load(context, checkpoint, device, dtype, memory_limit, lowvram, medvram, no_optimizations, compiled)
    print_status(f"checkpoint: {generator.checkpoint.name}, on {generator.engine.device}")
    if dry_run:
        print(json.dumps(generator.forecast(options)) if as_json else _as_sentence(generator.forecast(options)))
        return
    try:
        if image is None:
            results = generator.text_to_image(options=options)
        elif mask is None:
            results = generator.image_to_image(image, options=options)
        else:
            results = generator.inpaint(image, mask, options=options)
    except KeyboardInterrupt:
        print_status("interrupted; nothing was written.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    for result, target in zip(results, targets, strict=True):
        hidden = not save_options.metadata
        save(
            result.image,
            target,
            save_options,
            None if hidden else result.settings(),
            None,
            None if hidden else result.infotext(),
        )
        _report(result, target, as_json)


def _options(prompt: str, values: dict[str, Any], like: Path | None) -> GenerationOptions:
    if like is not None:
        from seesr.generation.like import values_from_infotext, values_from_settings

        settings, infotext = read_both(like)
        is_ours = settings is not None and "task" in settings
        values = (values_from_settings(settings or {}) if is_ours else values_from_infotext(infotext or "")) | values
    if prompt:
        values["prompt"] = prompt
    options = GenerationOptions.make(**values)
    # Drawn here, so that the names of the files are known before the work.
    return options if options.seed not in (None, -1) else options.model_copy(update={"seed": secrets.randbits(32)})


def _targets(output: Path, options: GenerationOptions, save_options: SaveOptions, overwrite: bool) -> list[Path]:
    """The files of all pictures: OUTPUT itself for one, else with the number of each; in a folder `SEED.png`."""
    suffix = f".{save_options.format or 'png'}"
    in_folder = output.is_dir() or not output.suffix
    if in_folder:
        stem = output / str(options.seed)
    else:
        if save_options.format and pillow_format(output) != pillow_format(Path(f"x{suffix}")):
            raise OutputError(f"{output} does not match --format {save_options.format}; change one or leave out --format.")
        pillow_format(output)
        stem, suffix = output.with_suffix(""), output.suffix
    numbers = [""] if options.count == 1 else [f"-{number + 1}" for number in range(options.count)]
    targets = [stem.with_name(f"{stem.name}{number}{suffix}") for number in numbers]
    if existing := next((path for path in targets if path.exists() and not overwrite), None):
        raise OutputError(f"{existing} exists; use --overwrite to replace it.")
    return targets


def _load(
    context: typer.Context,
    checkpoint: str | None,
    device: str,
    dtype: str,
    memory_limit: int | None,
    lowvram: bool,
    medvram: bool,
    no_optimizations: bool,
    compiled: bool,
) -> Generator:
    from seesr.generation.generator import Generator

    if lowvram + medvram + no_optimizations > 1:
        raise OptionError("give one of --lowvram, --medvram and --no-optimizations.")
    vae_tile = SMALL_VAE_TILE if lowvram else MEDIUM_VAE_TILE if medvram else 0 if no_optimizations else None
    load = context.obj or Generator.load
    return load(
        checkpoint, device, dtype, memory_limit=memory_limit, sequential=lowvram, compiled=compiled, vae_tile=vae_tile
    )


def _report(result: GenerationResult, target: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"output": str(target), **result.record()}), flush=True)
        return
    notes = "".join(f"; {note}" for note in result.notes)
    size = f"{result.image.width}x{result.image.height}"
    print_status(f"{target}: {size}, seed {result.seed}, {sum(result.seconds.values()):.1f} s{notes}")


def _as_sentence(forecast: dict[str, Any]) -> str:
    return (
        f"{forecast['pictures']} pictures of {forecast['width']}x{forecast['height']}, memory plan {forecast['plan']}: "
        f"about {forecast['memory'] / 1e9:.2f} GB beside the weights and {forecast['seconds']:.0f} s"
    )
