"""`seesr models`: the user's checkpoints, LoRAs, VAEs, ControlNets and embeddings: list, pull, add, remove, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seesr.cli import weights
from seesr.cli.console import EXIT_INTERRUPTED, print_record, print_status, progress_bars
from seesr.cli.flags import JsonFlag, ModelsFromFlag, use_models_from
from seesr.errors import OptionError
from seesr.files import data_folder, gigabytes

if TYPE_CHECKING:
    from seesr.models.contents import Kind
    from seesr.models.listing import ModelInfo
    from seesr.models.manager import ModelManager

EXIT_CHANGED = 1
FULL = "full"
"""The upscaling weights, which `seesr weights` keeps."""

DataFlag = Annotated[Path | None, typer.Option(help="Folder that holds models/; by default SEESR_DATA, else your own.")]
KindFlag = Annotated[
    str | None, typer.Option(metavar="KIND", help="checkpoints, loras, vae, controlnet or embeddings; by default any.")
]
NameFlag = Annotated[str | None, typer.Option(help="What it is called here; by default as at its source.")]
Name = Annotated[str, typer.Argument(help="As `seesr models list` shows it.")]
Private = Annotated[
    bool, typer.Option("--allow-private", help="Fetch from addresses of this machine and its network too, and by http.")
]

app = typer.Typer(help="Checkpoints, LoRAs, VAEs, ControlNets and embeddings.", no_args_is_help=True)


@app.command(name="list")
def list_models(
    kind: KindFlag = None,
    catalogue: Annotated[bool, typer.Option("--catalogue", help="Show well-known models that can be pulled.")] = False,
    digests: Annotated[bool, typer.Option("--digests", help="Compute the SHA-256 of each file, once.")] = False,
    data: DataFlag = None,
    models_from: ModelsFromFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the models: their family, size and licence, and why one cannot be used."""
    manager = _manager(data, models_from)
    if catalogue:
        for entry in manager.catalogue():
            if as_json:
                print_record(entry.model_dump())
            else:
                print(
                    f"{entry.kind:12} {gigabytes(entry.megabytes * 10**6):>8}  {entry.name}: {entry.about}; {entry.licence}"
                )
        return
    infos = manager.list_models(_kind(kind))
    for info in infos:
        if digests and not info.is_folder:
            info = info.model_copy(update={"sha256": manager.digest(info.kind, info.name)})
        if as_json:
            print_record(info.model_dump())
        else:
            print(_line(info))
    if not as_json:
        print(f"{len(infos)} models in {manager.models}{''.join(f', {folder}' for folder in manager.others)}")
        print(weights.summary())


@app.command()
def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="A name of the catalogue, owner/name[@revision][:file.safetensors] of the hub, an https address, or full, "
            "the upscaling weights."
        ),
    ],
    sha256: Annotated[str | None, typer.Option(help="Of the file; an address needs it.")] = None,
    kind: KindFlag = None,
    name: NameFlag = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="You have read and accept its licence; or SEESR_ACCEPT_LICENSE=1.")
    ] = False,
    allow_private: Private = False,
    data: DataFlag = None,
) -> None:
    """Fetch a model; may be interrupted and run again."""
    if source == FULL:
        weights.pull_files(accept_license)
        return
    from seesr.addresses import AddressRules
    from seesr.models.catalogue import parse_source

    manager, wanted = _manager(data, None), _kind(kind)
    manager.rules = AddressRules(allow_private)
    plan = manager.plan(parse_source(source, sha256))
    size = f", {gigabytes(plan.size)}" if plan.size else ""
    print_status(f"{plan.source}{f' at {plan.revision[:10]}' if plan.revision else ''}{size}")
    print_status(f"licence: {plan.licence or 'none is stated'}{f', {plan.licence_page}' if plan.licence_page else ''}")
    try:
        with progress_bars() as bars:
            task = bars.add_task("MB", total=None)

            def show(done: int, total: int) -> None:
                bars.update(task, completed=done // 10**6, total=total // 10**6)

            info = manager.pull(plan, wanted, name, accept_license, on_bytes=show)
    except KeyboardInterrupt:
        print_status("interrupted; what was fetched is kept, and the same command goes on after it.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print(_line(info))


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="A safetensors file, or a folder of diffusers.")],
    kind: KindFlag = None,
    name: NameFlag = None,
    data: DataFlag = None,
) -> None:
    """Copy a model to the others; its content says of which kind it is."""
    print(_line(_manager(data, None).add(path, _kind(kind), name)))


@app.command()
def remove(name: Name, kind: KindFlag = None, data: DataFlag = None, models_from: ModelsFromFlag = None) -> None:
    """Remove a model; while a studio runs on the folder, it does that."""
    from filelock import FileLock, Timeout

    from seesr.studio.studio import LOCK

    manager = _manager(data, models_from)
    found = _find(manager, name, kind)
    lock = manager.models.parent / LOCK
    if lock.exists():
        try:
            FileLock(lock).acquire(timeout=0).lock.release()
        except Timeout:
            raise OptionError(
                f"a studio runs on {lock.parent}, and may use {name}; remove it there (DELETE "
                f"/api/v1/models/{found.kind}/{found.name}), or end the studio."
            ) from None
    manager.remove(found.kind, found.name)
    print_status(f"{found.name} was removed from models/{found.kind}.")


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="One model, or full, the upscaling weights; by default all others.")
    ] = None,
    kind: KindFlag = None,
    data: DataFlag = None,
) -> None:
    """Compare files with the SHA-256 that was recorded when they were fetched or added."""
    if name == FULL:
        weights.verify()
        return
    manager = _manager(data, None)
    chosen = None if name is None else _find(manager, name, kind)
    counts = dict[str, int]()
    for file in manager.verify(chosen.kind if chosen else _kind(kind), chosen.name if chosen else None):
        counts[file.state] = counts.get(file.state, 0) + 1
        print(f"{file.state:12} {file.kind}/{file.name}" + (f": {file.file}" if file.file != file.name else ""))
    print_status(", ".join(f"{count} files {state}" for state, count in counts.items()) or "no models.")
    if counts.keys() - {"intact", "not recorded"}:
        raise typer.Exit(EXIT_CHANGED)


def _manager(data: Path | None, models_from: list[Path] | None) -> ModelManager:
    from seesr.models.manager import ModelManager

    use_models_from(models_from)
    return ModelManager(data or data_folder())


def _kind(text: str | None) -> Kind | None:
    from seesr.models.contents import KINDS

    if text is None:
        return None
    for kind in KINDS:
        if text.lower() in (kind, kind.removesuffix("s")):
            return kind
    raise OptionError(f"unknown kind {text!r}; valid kinds: {', '.join(KINDS)}.")


def _find(manager: ModelManager, name: str, kind: str | None) -> ModelInfo:
    """The model of this name, of whichever kind."""
    from seesr.generation.library import matching

    found = matching(manager.list_models(_kind(kind)), name)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{info.kind}/{info.name}" for info in found)
        raise OptionError(f"several models are called {name!r}: {listed}; give its whole name and --kind.")
    raise OptionError(f"unknown model {name!r}; `seesr models list` shows those that are there.")


def _line(info: ModelInfo) -> str:
    facts = [info.base, info.licence, f"sha256 {info.sha256}" if info.sha256 else None]
    if info.trigger_words:
        facts.append(f"words: {', '.join(info.trigger_words[:3])}")
    if info.problem:
        facts.append(f"cannot be used: {info.problem}")
    return f"{info.kind:12} {gigabytes(info.size):>8}  {info.name}" + "".join(f"; {fact}" for fact in facts if fact)
