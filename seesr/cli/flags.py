"""Options of `options.py` as flags of a typer command, so that no command lists them; and flags that commands share."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from seesr.options import PRESETS, Options, SaveOptions, parse_bytes

Weights = Annotated[
    str | None,
    typer.Option(help="A folder, full or tiny; without it SEESR_WEIGHTS, the full model if it is here, else the tiny one."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or, on GPUs, float16.")]
MemoryLimit = Annotated[
    int | None, typer.Option(parser=parse_bytes, metavar="<size>", help="Like 4GB; without it nine tenths of what is free.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON for each picture.")]


def takes_options(without: tuple[str, ...] = (), **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command that has a parameter `options: Options` `--preset` and a flag for every option instead.

    There are no flags for the options `without`; `defaults` are what the others have when their flag is not given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        help_of_preset = f"{' or '.join(PRESETS)}; options given beside it win."
        preset = _keyword("preset", Annotated[str | None, typer.Option(help=help_of_preset)])
        flags = [preset, *_flags(Options, without, defaults)]

        def gather(given: dict[str, Any]) -> Options:
            chosen, values = given.pop("preset"), _take(given, flags[1:])
            return Options.make(chosen, **(defaults | {name: value for name, value in values.items() if value is not None}))

        return _with_flags(command, "options", flags, gather)

    return decorate


def takes_save_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a parameter `saving: SaveOptions`."""
    flags = _flags(SaveOptions)
    return _with_flags(command, "saving", flags, lambda given: SaveOptions.make(**_take(given, flags)))


def _with_flags(
    command: Callable[..., None],
    replaced: str,
    flags: list[inspect.Parameter],
    gather: Callable[[dict[str, Any]], Any],
) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        given[replaced] = gather(given)
        command(**given)

    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
    place = [*signature.parameters].index(replaced)
    together = [*own[:place], *flags, *own[place + 1 :]]
    run.__signature__ = signature.replace(parameters=together)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in together}
    return run


def _take(given: dict[str, Any], flags: list[inspect.Parameter]) -> Mapping[str, Any]:
    return {flag.name: given.pop(flag.name) for flag in flags}


def _flags(
    model: type[Options] | type[SaveOptions], without: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None
) -> list[inspect.Parameter]:
    made = []
    for name, field in model.model_fields.items():
        if name in without:
            continue
        kind, flag = _plain(field.annotation), "--" + name.replace("_", "-")
        default = (defaults or {}).get(name, field.default)
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
            help=_help(model, name),
            show_default=str(default) if default not in (None, "") else False,
        )
        made.append(_keyword(name, Annotated[kind | None, option]))
    return made


def _help(model: type[Options] | type[SaveOptions], name: str) -> str:
    """What the option does, and between which values where it has bounds."""
    low, high = model.bounds(name)
    return model.describe(name) + ("" if low is None or high is None else f" [{low} to {high}]")


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain(annotation: Any) -> Any:
    """The type without None; choices are strings, which `options.py` checks."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is not None:
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return str if get_origin(annotation) is Literal or get_origin(parts[0]) is Literal else parts[0]
    return annotation
