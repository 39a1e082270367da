"""`seesr weights list | pull | verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seesr.cli.console import say
from seesr.weights.cache import Cache, sha256
from seesr.weights.hub import COMMAND, is_accepted, pull
from seesr.weights.manifest import File, read_manifest

BAD = 1
app = typer.Typer(help="The full model's files: list, fetch, check.", no_args_is_help=True)


@app.command(name="list")
def list_files() -> None:
    """Show every file of the full model: where it comes from, its size and licence, and whether it is here."""
    manifest, cache = read_manifest(), Cache.default()
    for source in manifest.source:
        print(f"{source.name}: {source.repository} at {source.revision[:10]}, {source.licence}")
        for file in source.files:
            print(f"  {'here' if cache.has(file) else 'missing':8} {_size(file.megabytes):>7}  {file.kept_as}")
    missing = cache.missing(manifest)
    print(f"cache: {cache.full}")
    if missing:
        rest = _size(sum(file.megabytes for file in missing))
        print(f"{len(missing)} of {len(manifest.files)} files missing, {rest}; `{COMMAND}` fetches them.")


@app.command(name="pull")
def pull_files(
    accept_license: Annotated[
        bool,
        typer.Option("--accept-license", help="You have read and accept SD-Turbo's licence; or SEESR_ACCEPT_LICENSE=1."),
    ] = False,
) -> None:
    """Fetch what the cache lacks; may be interrupted and run again."""
    manifest, cache = read_manifest(), Cache.default()
    for source in manifest.source:
        if source.must_accept and any(not cache.has(file) for file in source.files):
            say(f"{source.name}: {source.licence}, {source.licence_page}")
    missing = cache.missing(manifest)
    done = len(manifest.files) - len(missing)

    def tell(file: File, what: str) -> None:
        nonlocal done
        done += what == "done"
        if what == "fetch":
            say(f"[{done + 1}/{len(manifest.files)}] {file.remote} ({_size(file.megabytes)})")

    try:
        pull(manifest, cache, accept_license or is_accepted(), tell)
    except KeyboardInterrupt:
        say(f"stopped; finished files stay in {cache.full}. Run `{COMMAND}` again.")
        raise typer.Exit(130) from None
    say(f"the full model is complete in {cache.full}; seesr uses it from now on.")


@app.command()
def verify() -> None:
    """Read every fetched file and compare it with the digest it had when it was found right."""
    manifest, cache = read_manifest(), Cache.default()
    records, bad, fetched = cache.records(), 0, 0
    for _, file in manifest.files:
        record = records.get(file.kept_as)
        if record is None:
            continue
        fetched += 1
        path = cache.full / file.kept_as
        state = _state(path, record["sha256"])
        print(f"{state:10} {file.kept_as}")
        if state != "right":
            bad += 1
            _forget(cache, file)
    print(f"{fetched - bad} of {len(manifest.files)} files are here and right ({cache.full}).")
    if bad:
        say(f"{bad} files are not what was fetched; `{COMMAND}` fetches them again.")
    if fetched - bad < len(manifest.files):
        raise typer.Exit(BAD)


def _state(path: Path, digest: str) -> str:
    if not path.is_file():
        return "missing"
    try:
        return "right" if sha256(path) == digest else "changed"
    except OSError:
        return "unreadable"


def _forget(cache: Cache, file: File) -> None:
    try:
        with cache.lock:
            cache.forget(file)
    except OSError as error:
        say(f"the cache {cache.root} cannot be written: {error.strerror or error}; {file.kept_as} still counts there.")


def _size(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes or '<1'} MB"
