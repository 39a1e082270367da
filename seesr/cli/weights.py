"""`seesr weights`: lists, downloads and verifies the files of the full model."""

from __future__ import annotations

from typing import Annotated

import typer

from seesr.cli.console import EXIT_INTERRUPTED, print_status
from seesr.weights.cache import Cache, file_state
from seesr.weights.hub import PULL_COMMAND, is_accepted, pull
from seesr.weights.manifest import WeightFile, read_manifest

EXIT_INCOMPLETE = 1
app = typer.Typer(help="The files of the full model: list, download, verify.", no_args_is_help=True)


@app.command(name="list")
def list_files() -> None:
    """Show every file of the full model: its source, licence and size, and whether it is in the cache."""
    manifest, cache = read_manifest(), Cache.default()
    for source in manifest.source:
        print(f"{source.name}: {source.repository} at {source.revision[:10]}, {source.licence}")
        for file in source.files:
            print(f"  {'here' if cache.has(file) else 'missing':8} {_size(file.megabytes):>7}  {file.cached_path}")
    missing = cache.missing(manifest)
    print(f"cache: {cache.full}")
    if missing:
        total = _size(sum(file.megabytes for file in missing))
        print(f"{len(missing)} of {len(manifest.files)} files missing, {total}; `{PULL_COMMAND}` downloads them.")


def summary() -> str:
    """A line about the full model, for `seesr models`."""
    manifest, cache = read_manifest(), Cache.default()
    missing = cache.missing(manifest)
    return (
        f"upscaling weights: {len(manifest.files) - len(missing)} of {len(manifest.files)} files of the full model are here"
    )


@app.command(name="pull")
def pull_files(
    accept_license: Annotated[
        bool,
        typer.Option("--accept-license", help="You have read and accept SD-Turbo's licence; or SEESR_ACCEPT_LICENSE=1."),
    ] = False,
) -> None:
    """Download the files that are missing in the cache; may be interrupted and run again."""
    manifest, cache = read_manifest(), Cache.default()
    for source in manifest.source:
        if source.must_accept and any(not cache.has(file) for file in source.files):
            print_status(f"{source.name}: {source.licence}, {source.licence_page}")
    missing = cache.missing(manifest)
    done = len(manifest.files) - len(missing)

    def show_progress(file: WeightFile, event: str) -> None:
        nonlocal done
        done += event == "done"
        if event == "fetch":
            print_status(f"[{done + 1}/{len(manifest.files)}] {file.remote} ({_size(file.megabytes)})")

    try:
        pull(manifest, cache, accept_license or is_accepted(), show_progress)
    except KeyboardInterrupt:
        print_status(f"interrupted; complete files stay in {cache.full}. Run `{PULL_COMMAND}` again.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_status(f"the full model is complete in {cache.full}; seesr uses it from now on.")


@app.command()
def verify() -> None:
    """Verify every downloaded file against the SHA-256 checksum that was recorded when it was downloaded."""
    manifest, cache = read_manifest(), Cache.default()
    records, invalid, downloaded = cache.records(), 0, 0
    for _, file in manifest.files:
        record = records.get(file.cached_path)
        if record is None:
            continue
        downloaded += 1
        path = cache.full / file.cached_path
        state = file_state(path, record["sha256"])
        print(f"{state:10} {file.cached_path}")
        if state != "intact":
            invalid += 1
            _forget(cache, file)
    print(f"{downloaded - invalid} of {len(manifest.files)} files are present and intact ({cache.full}).")
    if invalid:
        print_status(f"{invalid} files are not as they were downloaded; `{PULL_COMMAND}` downloads them again.")
    if downloaded - invalid < len(manifest.files):
        raise typer.Exit(EXIT_INCOMPLETE)


def _forget(cache: Cache, file: WeightFile) -> None:
    try:
        with cache.lock:
            cache.invalidate(file)
    except OSError as error:
        print_status(
            f"the cache {cache.root} cannot be written: {error.strerror or error}; "
            f"{file.cached_path} still counts as intact."
        )


def _size(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes or '<1'} MB"
