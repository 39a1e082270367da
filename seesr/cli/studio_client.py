"""`seesr studio submit|jobs|cancel|gallery`: jobs and pictures of a studio that runs, here or elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seesr.cli.console import EXIT_FAILED, print_record, print_status, progress_bars
from seesr.cli.flags import JsonFlag
from seesr.errors import InputError, OptionError, OutputError, first_line
from seesr.files import atomic_write

if TYPE_CHECKING:
    from seesr.client import Client
    from seesr.jobs import JobEvent, JobRequest
    from seesr.studio.records import Job, PictureRecord

TaskName = Literal["generate", "upscale", "tags"]

AddressFlag = Annotated[str, typer.Option("--address", envvar="SEESR_STUDIO", help="Where the studio is.")]
KeyFlag = Annotated[
    str | None, typer.Option("--key", envvar="SEESR_STUDIO_KEY", help="A key of yours; better in the environment.")
]
CountFlag = Annotated[int, typer.Option(min=1, max=200, help="How many are shown.")]
ADDRESS = "http://127.0.0.1:7860"
DATES = ["%Y-%m-%d"]


def submit(
    prompt: Annotated[str, typer.Argument(help="What the picture shows, or words for upscaling.")] = "",
    task: Annotated[TaskName, typer.Option(help="What to do.")] = "generate",
    image: Annotated[Path | None, typer.Option(help="Picture to begin from, to upscale, or to tag.")] = None,
    mask: Annotated[Path | None, typer.Option(help="With --image: what is white in it is painted anew.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="An option of the task, such as steps=4; may be given several times."
        ),
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name of a checkpoint that the studio has.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Wait, and write the pictures into this folder.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end.")] = False,
    address: AddressFlag = ADDRESS,
    key: KeyFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Give a job to a studio; prints its id."""
    from seesr.jobs import content_hash

    pictures = {name: _read(path) for name, path in (("image", image), ("mask", mask)) if path is not None}
    request = _request(task, prompt, _options(option or []), checkpoint, {k: content_hash(v) for k, v in pictures.items()})
    with _client(address, key) as client:
        job = client.submit(request, pictures.values())
        if output is None and not wait:
            _print_job(job, as_json)
            return
        print_status(f"job {job.id}")
        _follow(client.events(job.id))
        job = client.job(job.id)
        _print_job(job, as_json)
        if output is not None:
            for picture in job.pictures:
                _download(client, picture, output)
    if job.state != "done":
        raise typer.Exit(EXIT_FAILED)


def jobs(
    count: CountFlag = 20,
    address: AddressFlag = ADDRESS,
    key: KeyFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show your jobs, newest first."""
    with _client(address, key) as client:
        for job in client.jobs(count=count).jobs:
            _print_job(job, as_json)


def cancel(
    job: Annotated[list[str], typer.Argument(help="Ids of jobs.")],
    address: AddressFlag = ADDRESS,
    key: KeyFlag = None,
) -> None:
    """End jobs; one that runs ends within a step."""
    with _client(address, key) as client:
        for id in job:
            state = client.cancel(id).state
            if state not in ("running", "cancelled"):
                print_status(f"{id} had ended before: {state}.")


def gallery(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the files into this folder.")] = None,
    words: Annotated[str, typer.Option(help="Words that all stand in the prompt.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given several times.")] = None,
    lora: Annotated[str | None, typer.Option(help="Name of a LoRA.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name of a checkpoint.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=DATES, help="First day, as 2026-11-30.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=DATES, help="The day after the last.")] = None,
    favourite: Annotated[bool, typer.Option("--favourite", help="Favourites alone.")] = False,
    board: Annotated[str | None, typer.Option(help="Name of a board.")] = None,
    trash: Annotated[bool, typer.Option("--trash", help="What is in the trash.")] = False,
    count: CountFlag = 20,
    address: AddressFlag = ADDRESS,
    key: KeyFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show your pictures, newest first, or fetch their files."""
    from seesr.studio.records import PictureSearch

    with _client(address, key) as client:
        search = PictureSearch(
            words=words,
            tags=tuple(tag or ()),
            lora=lora,
            checkpoint=checkpoint,
            since=since and since.astimezone(),
            until=until and until.astimezone(),
            favourite=favourite,
            board=None if board is None else _board(client, board),
            trash=trash,
        )
        for picture in client.pictures(count=count, search=search).pictures:
            if as_json:
                print_record(picture.model_dump(mode="json"))
            else:
                print(f"{picture.id}  {picture.created:%Y-%m-%d %H:%M}  {picture.width}x{picture.height}")
            if output is not None:
                _download(client, picture, output)


def _board(client: Client, name: str) -> str:
    """The id of a board."""
    boards = {board.name: board.id for board in client.boards()}
    if name not in boards:
        raise OptionError(f"there is no board {name!r}; {'there are: ' + ', '.join(boards) if boards else 'you have none'}.")
    return boards[name]


@contextmanager
def _client(address: str, key: str | None) -> Iterator[Client]:
    from seesr.client import Client

    if not address.startswith(("http://", "https://")):
        raise OptionError(f"the address of the studio is {address!r}; write it as {ADDRESS}.")
    with Client(address, key=key) as client:
        yield client


def _request(
    task: TaskName, prompt: str, options: dict[str, Any], checkpoint: str | None, pictures: dict[str, str]
) -> JobRequest:
    from seesr.jobs import parse_request

    if task != "generate":
        if checkpoint is not None or "mask" in pictures:
            raise OptionError(f"--mask and --checkpoint are for --task generate, not {task}.")
        if "image" not in pictures:
            raise OptionError(f"--task {task} takes a picture: give it with --image.")
    if task == "tags":
        if options or prompt:
            raise OptionError("--task tags takes a picture alone.")
        return parse_request({"task": "tags", **pictures})
    values = options | ({"prompt": prompt} if prompt else {})
    if task == "upscale":
        return parse_request({"task": "upscale", "options": values, **pictures})
    kind = "inpainting" if "mask" in pictures else "image to image" if "image" in pictures else "text to image"
    return parse_request({"task": kind, "options": values, "checkpoint": checkpoint, **pictures})


def _options(texts: list[str]) -> dict[str, Any]:
    """Values by name; each is JSON where it can be read as such, else text."""
    options = dict[str, Any]()
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise OptionError(f"--set is {text!r}; write NAME=VALUE, such as --set steps=4.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a picture.") from error


def _follow(events: Iterator[JobEvent]) -> None:
    """Shows the progress of a job until its end."""
    with progress_bars() as bars:
        current = bars.add_task("waiting", total=None)
        for event in events:
            if event.kind == "progress":
                done, total = event.data.get("step"), event.data.get("steps")
                bars.update(current, description=event.data.get("stage", ""), completed=done, total=total)
            elif event.kind == "note":
                print_status(event.data.get("text", ""))


def _print_job(job: Job, as_json: bool) -> None:
    if as_json:
        print_record(job.model_dump(mode="json"))
        return
    ahead = f", {job.ahead} before it" if job.ahead else ""
    error = f": {job.error}" if job.error else ""
    print(f"{job.id}  {job.created:%Y-%m-%d %H:%M}  {job.request.task}  {job.state}{ahead}{error}")
    for name, confidence in job.result.get("tags", {}).items():
        print(f"{confidence:.2f}  {name}")


def _download(client: Client, picture: PictureRecord, folder: Path) -> None:
    from seesr.jobs import MEDIA_TYPES

    suffixes = {media_type: suffix for suffix, media_type in MEDIA_TYPES.items()}
    if not picture.id.isalnum() or picture.media_type not in suffixes:
        raise OutputError(f"the studio calls a picture {picture.id!r}, of {picture.media_type!r}; that names no file.")
    target = folder / f"{picture.id}.{suffixes[picture.media_type]}"
    if target.exists():  # an id is one picture for ever
        return
    content = client.picture_file(picture.id)
    try:
        with atomic_write(target) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {first_line(error)}.") from error
    print_status(f"{target}")
