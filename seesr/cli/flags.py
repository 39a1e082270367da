"""Typer flags: those generated from the options of `seesr/options.py`, and those that several sub-commands share."""

from __future__ import annotations

import functools
import inspect
import os
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from seesr.errors import OptionError
from seesr.generation.library import MODELS_FROM_VARIABLE
from seesr.generation.options import GenerationOptions
from seesr.options import PRESETS, OptionModel, Options, ReadOptions, SaveOptions, parse_bytes

Command = Callable[..., None]

WeightsFlag = Annotated[
    str | None,
    typer.Option(help="A folder, full or tiny; by default SEESR_WEIGHTS, else the full model if it is cached, else tiny."),
]
DeviceFlag = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
DtypeFlag = Annotated[str, typer.Option(help="auto, float32, bfloat16 or, on GPUs, float16.")]
MemoryLimitFlag = Annotated[
    int | None,
    typer.Option(parser=parse_bytes, metavar="<size>", help="Like 4GB; by default nine tenths of the free memory."),
]
LowvramFlag = Annotated[bool, typer.Option(help="Keep only the running network on the device; small VAE tiles.")]
MedvramFlag = Annotated[bool, typer.Option(help="Run the VAE in tiles.")]
NoOptimizationsFlag = Annotated[bool, typer.Option("--no-optimizations", help="Never run the VAE in tiles.")]
CompiledFlag = Annotated[bool, typer.Option("--compile", help="Compile the networks' blocks at their first run.")]
ModelsFromFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--models-from",
        help="Folder of AUTOMATIC1111's web UI or ComfyUI, whose models are found too; may be given several times; by "
        "default SEESR_MODELS_FROM.",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one line of JSON for each picture.")]


def use_models_from(folders: list[Path] | None) -> None:
    """Has the library of models, here and in processes that are started from here, look into these folders too.

    Raises:
        OptionError: one is not there.
    """
    if missing := next((folder for folder in folders or () if not folder.is_dir()), None):
        raise OptionError(f"--models-from {missing} is not a folder; give that of another program, or models in it.")
    if folders:
        os.environ[MODELS_FROM_VARIABLE] = os.pathsep.join(str(folder.absolute()) for folder in folders)


def with_option_flags(exclude: tuple[str, ...] = (), **defaults: Any) -> Callable[[Command], Command]:
    """Decorator that replaces the parameter `options: Options` of a command by `--preset` and a flag for each option.

    Args:
        exclude: options without a flag.
        defaults: values of options whose flags are not given, in place of those of `Options`.
    """

    def decorate(command: Command) -> Command:
        preset_help = f"{' or '.join(PRESETS)}; options that are given explicitly take precedence."
        preset = _keyword_parameter("preset", Annotated[str | None, typer.Option(help=preset_help)])
        flags = [preset, *_option_flags(Options, exclude, defaults)]

        def build(arguments: dict[str, Any]) -> Options:
            preset_name, values = arguments.pop("preset"), _pop_values(arguments, flags[1:])
            explicit = {name: value for name, value in values.items() if value is not None}
            return Options.make(preset_name, **(defaults | explicit))

        return _replace_parameter(command, "options", flags, build)

    return decorate


def with_generation_option_flags(*exclude: str) -> Callable[[Command], Command]:
    """Decorator that replaces the parameter `values: dict` of a command by a flag for each option of `GenerationOptions`.

    `values` has those that were given.
    """

    def decorate(command: Command) -> Command:
        flags = _option_flags(GenerationOptions, exclude)

        def build(arguments: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in _pop_values(arguments, flags).items() if value is not None}

        return _replace_parameter(command, "values", flags, build)

    return decorate


def with_read_option_flags(command: Command) -> Command:
    """Decorator that replaces the parameter `read_options: ReadOptions` of a command by a flag for each option."""
    return _with_flags(command, "read_options", ReadOptions)


def with_save_option_flags(command: Command) -> Command:
    """Decorator that replaces the parameter `save_options: SaveOptions` of a command by a flag for each option."""
    return _with_flags(command, "save_options", SaveOptions)


def _with_flags(command: Command, name: str, model: type[OptionModel]) -> Command:
    flags = _option_flags(model)
    return _replace_parameter(command, name, flags, lambda arguments: model.make(**_pop_values(arguments, flags)))


def _replace_parameter(
    command: Command,
    name: str,
    flags: list[inspect.Parameter],
    build: Callable[[dict[str, Any]], Any],
) -> Command:
    """Replaces the parameter `name` of `command` by `flags`; `build` pops their arguments and returns that of `name`."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        arguments[name] = build(arguments)
        command(**arguments)

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
    index = [*signature.parameters].index(name)
    parameters[index : index + 1] = flags
    run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue] # for inspect
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _pop_values(arguments: dict[str, Any], flags: list[inspect.Parameter]) -> Mapping[str, Any]:
    return {flag.name: arguments.pop(flag.name) for flag in flags}


def _option_flags(
    model: type[OptionModel], exclude: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None
) -> list[inspect.Parameter]:
    flags = []
    for name, field in model.model_fields.items():
        if name in exclude:
            continue
        flag_type, flag = _flag_type(field.annotation), "--" + name.replace("_", "-")
        default = (defaults or {}).get(name, field.default)
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if flag_type is bool else flag,
            help=_help(model, name),
            show_default=str(default) if default not in (None, "") else False,
        )
        flags.append(_keyword_parameter(name, Annotated[flag_type | None, option]))
    return flags


def _help(model: type[OptionModel], name: str) -> str:
    """The description of the option, followed by its bounds if it has any."""
    low, high = model.bounds(name)
    return model.describe(name) + ("" if low is None or high is None else f" [{low} to {high}]")


def _keyword_parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag_type(annotation: Any) -> Any:
    """The type of an option without None; of a Literal that of its values, which `Options` checks."""
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is not None:
        return _flag_type(next(member for member in get_args(annotation) if member is not type(None)))
    return annotation
