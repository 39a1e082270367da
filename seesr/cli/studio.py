"""`seesr studio`: runs the studio's server; `users`, `backup` and `restore` beside it look after what it keeps."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seesr.cli import studio_client
from seesr.cli.console import EXIT_FAILED, print_status
from seesr.cli.flags import DtypeFlag, MemoryLimitFlag, ModelsFromFlag, WeightsFlag, use_models_from
from seesr.errors import OptionError, first_line
from seesr.files import DATA_VARIABLE, data_folder
from seesr.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seesr.jobs import Worker
    from seesr.studio.accounts import Accounts
    from seesr.studio.records import Role
    from seesr.studio.settings import StudioSettings
    from seesr.studio.store import Store
    from seesr.studio.studio import Studio

AUTH, AUTH_FILE = "SEESR_AUTH", "SEESR_AUTH_FILE"
EXTRA = ("alembic", "argon2", "fastapi", "prometheus_client", "sqlalchemy", "uvicorn", "websockets")
"""Packages of the extra `studio`."""
GRACE_SECONDS = 3
"""For answers that are under way when the server is told to end; streams never end by themselves."""
BACKLOG = 100
COUNT_GPUS = "import torch; print(torch.cuda.device_count())"

DataFlag = Annotated[
    Path | None, typer.Option(help="Folder of the store, the pictures and the models; by default SEESR_DATA, else your own.")
]
DatabaseFlag = Annotated[str | None, typer.Option(help="URL of the store, such as postgresql://seesr@db/seesr.")]
ConfigFlag = Annotated[Path | None, typer.Option(help="Settings; by default studio.toml in the data folder.")]

app = typer.Typer(help="The studio: a server for jobs, users and pictures.", invoke_without_command=True)
users_app = typer.Typer(help="Who may log in.", no_args_is_help=True)
app.add_typer(users_app, name="users")
for client_command in (studio_client.submit, studio_client.jobs, studio_client.cancel, studio_client.gallery):
    app.command()(client_command)


@app.callback()
def studio(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen at; by default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="By default 7860; 0: a free one.")] = None,
    data: DataFlag = None,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:PASSWORD",
            help=f"An admin, who is made if need be; better in {AUTH}, or in the file that {AUTH_FILE} names, "
            "which other users of the machine do not see.",
        ),
    ] = None,
    database: DatabaseFlag = None,
    config: ConfigFlag = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Folder or URL, such as s3://bucket/folder, of the pictures; by default in --data."
        ),
    ] = None,
    root_path: Annotated[str | None, typer.Option(help="Path below which a proxy offers it, such as /studio.")] = None,
    webhook_allow: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A host of your own that webhooks may be sent to, also by http; may be repeated."),
    ] = None,
    paused: Annotated[bool, typer.Option(help="Begin no job until an admin resumes the queue.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Do not offer the page, for which Gradio is needed.")] = False,
    no_sdapi: Annotated[bool, typer.Option("--no-sdapi", help="Do not offer A1111's API, /sdapi/v1.")] = False,
    devices: Annotated[
        str, typer.Option(help="auto, all, or devices with commas between: cpu, cuda:0, mps; one worker runs on each.")
    ] = "auto",
    weights: WeightsFlag = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Of jobs that name none; by default as `seesr generate` takes it.")
    ] = None,
    safety_checker: Annotated[
        Path | None, typer.Option(help="Folder of a safety checker; by default SEESR_SAFETY_CHECKER, else none.")
    ] = None,
    models_from: ModelsFromFlag = None,
    dtype: DtypeFlag = "auto",
    memory_limit: MemoryLimitFlag = None,
    lowvram: Annotated[bool, typer.Option(help="Keep only the running network on the device; small VAE tiles.")] = False,
    medvram: Annotated[bool, typer.Option(help="Run the VAE in tiles.")] = False,
    no_optimizations: Annotated[bool, typer.Option("--no-optimizations", help="Never run the VAE in tiles.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the networks' blocks at their first run.")] = False,
) -> None:
    """Run the studio until Ctrl-C or SIGTERM."""
    if context.invoked_subcommand is not None:
        return
    from seesr.studio.accounts import Accounts
    from seesr.studio.studio import Studio
    from seesr.weights.resolve import ENVIRONMENT_VARIABLE

    use_models_from(models_from)
    data = (data or data_folder()).absolute()
    flags = {"host": host, "port": port, "database": database, "root_path": root_path}
    choices = {"outputs": outputs, "webhook_allow": webhook_allow} | ({"sdapi": False} if no_sdapi else {})
    choices |= {"page": False} if no_page else {}
    settings = _settings(data, config, **flags, **choices)
    if settings.page and importlib.util.find_spec("gradio") is None:
        raise OptionError("the page needs gradio; install it with: pip install 'seesr[studio]', or give --no-page.")
    os.environ[DATA_VARIABLE] = str(data)  # where this process and the workers look for models and styles
    if weights is not None:
        os.environ[ENVIRONMENT_VARIABLE] = str(weights)  # of which the API tells
    models = {"weights": weights, "checkpoint": checkpoint, "safety_checker": safety_checker, "data": data}
    memory = {"dtype": dtype, "memory_limit": memory_limit, "lowvram": lowvram, "medvram": medvram}
    speed = {"no_optimizations": no_optimizations, "compiled": compiled, "seconds": settings.limits.seconds}
    with _listen(settings.host, settings.port) as listener:
        workers = _workers(devices, **models, **memory, **speed)
        with Studio.open(data, settings, workers, start=False) as opened:
            accounts = Accounts(opened.store, settings.session_hours)
            if pair := _auth(auth):
                accounts.ensure_user(*pair)
            if not settings.is_loopback and not accounts.has_users():
                raise OptionError(
                    f"others reach {settings.host}, and there are no users; add one with `seesr studio users add NAME`."
                )
            if paused:
                opened.store.set_paused("started with --paused")
            opened.start()
            _print_facts(data, settings, accounts, listener)
            _serve(opened, accounts, settings, listener)


@users_app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits and . _ @ -")],
    admin: Annotated[bool, typer.Option(help="May do everything; the first user always may.")] = False,
    data: DataFlag = None,
    database: DatabaseFlag = None,
    config: ConfigFlag = None,
) -> None:
    """Add a user, whose password is asked for, or read as a line from standard input."""
    accounts = _accounts(context, data, database, config)
    role: Role = "admin" if admin else "user"
    user = accounts.add_user(name, _read_password(), role)
    print_status(f"{user.name} may log in, as {user.role}.")


@users_app.command()
def password(
    context: typer.Context, name: str, data: DataFlag = None, database: DatabaseFlag = None, config: ConfigFlag = None
) -> None:
    """Change a user's password, with which all sessions of the user end."""
    _accounts(context, data, database, config).set_password(name, _read_password())


@users_app.command()
def remove(
    context: typer.Context,
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: DataFlag = None,
    database: DatabaseFlag = None,
    config: ConfigFlag = None,
) -> None:
    """Remove a user with all jobs and pictures; the studio must not run."""
    from seesr.studio.records import LOCAL, User
    from seesr.studio.studio import Studio

    folder, settings = _place(context, data, database, config)
    if not yes:
        typer.confirm(f"Remove {name} with all jobs and pictures?", abort=True, err=True)
    # Without workers and without a start the queue rests.
    with Studio.open(folder, settings, {}, start=False) as opened:
        opened.delete_user(User(name=LOCAL, role="admin"), name)


@users_app.command(name="list")
def list_users(
    context: typer.Context, data: DataFlag = None, database: DatabaseFlag = None, config: ConfigFlag = None
) -> None:
    """Show the users, and the ids of their keys."""
    accounts = _accounts(context, data, database, config)
    for user in accounts.users():
        print(f"{user.name}  {user.role}")
        for key in accounts.keys(user.name):
            print(f"  key {key.id}  {key.created:%Y-%m-%d}  {key.label}")


@users_app.command()
def key(
    context: typer.Context,
    name: str,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    remove: Annotated[str | None, typer.Option(metavar="ID", help="Remove this key in place of making one.")] = None,
    data: DataFlag = None,
    database: DatabaseFlag = None,
    config: ConfigFlag = None,
) -> None:
    """Make a key, as clients of OpenAI's API send one; it is shown this once."""
    accounts = _accounts(context, data, database, config)
    if remove is not None:
        accounts.remove_key(name, remove)
    else:
        print(accounts.add_key(name, label))


@app.command()
def backup(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(help="A .tar file, which must not exist.")],
    data: DataFlag = None,
    database: DatabaseFlag = None,
    config: ConfigFlag = None,
) -> None:
    """Write the store, the pictures and the settings into a file; the studio may run."""
    from seesr.studio import backup as archive

    folder, settings = _place(context, data, database, config)
    count = archive.backup(folder, settings.store_url(folder), target)
    print_status(f"{target}: {count} pictures, {target.stat().st_size / 1e6:.1f} MB.")


@app.command()
def restore(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A file of `seesr studio backup`.")],
    data: DataFlag = None,
) -> None:
    """Unpack a backup into a data folder that holds no studio yet."""
    from seesr.studio import backup as archive

    folder = (data or _given(context, "data") or data_folder()).absolute()
    print_status(f"{folder}: {archive.restore(source, folder)} pictures.")


@app.command(name="import")
def import_pictures(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Pictures of A1111 or of your own; folders in it count too.")],
    user: Annotated[str | None, typer.Option(help="Whose they become; to be given where there are users.")] = None,
    board: Annotated[str | None, typer.Option(help="Name of a board on which they come; made if need be.")] = None,
    data: DataFlag = None,
    database: DatabaseFlag = None,
    config: ConfigFlag = None,
) -> None:
    """Take the pictures of a folder into the gallery, with the settings in their files; the studio may run."""
    from seesr.options import Limits
    from seesr.studio.files import FileStore
    from seesr.studio.imports import import_folder
    from seesr.studio.store import Store

    if not folder.is_dir():
        raise OptionError(f"{folder} is not a folder; name one with pictures.")
    place, settings = _place(context, data, database, config)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Store(settings.store_url(place)) as store:
        owner = _owner(store, user)
        known = {item.name: item.id for item in store.boards(owner)}
        board_id = None if board is None else known.get(board) or store.add_board(owner, board).id
        files = FileStore(place, outputs=settings.outputs)
        taken, had, refused = 0, 0, 0
        for file in import_folder(store, files, folder, owner, Limits.from_environment(), board_id):
            taken, had, refused = taken + bool(file.picture), had + (not file.picture), refused + bool(file.reason)
            if file.reason:
                print_status(file.reason)
        print_status(f"{place}: {taken} pictures were taken, {had - refused} were there already, {refused} cannot be taken.")
    if refused:
        raise typer.Exit(EXIT_FAILED)


def _owner(store: Store, user: str | None) -> str:
    """Whose the pictures become."""
    from seesr.studio.records import LOCAL

    names = [known.name for known in store.users()]
    if user is None and names:
        raise OptionError(f"there are users; give --user, one of: {', '.join(names)}.")
    if user is not None and user not in names:
        raise OptionError(
            f"there is no user {user!r}; {'give one of: ' + ', '.join(names) if names else 'leave out --user'}."
        )
    return user or LOCAL


def _settings(data: Path, config: Path | None, **flags: Any) -> StudioSettings:
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise OptionError(f"the studio needs {missing[0]}; install it with: pip install 'seesr[studio]'")
    from seesr.studio.settings import FILE, StudioSettings

    if config is not None and not config.is_file():
        raise OptionError(f"there is no file {config}; name another with --config.")
    return StudioSettings.read(config or data / FILE, **flags)


def _given(context: typer.Context, name: str) -> Any:
    """What was given before the sub-command: `seesr studio --data DIR users list`."""
    parent = context.parent
    while parent is not None:
        if parent.params.get(name) is not None:
            return parent.params[name]
        parent = parent.parent
    return None


def _place(
    context: typer.Context, data: Path | None, database: str | None, config: Path | None
) -> tuple[Path, StudioSettings]:
    """The data folder and the settings that a sub-command is for."""
    folder: Path = (data or _given(context, "data") or data_folder()).absolute()
    return folder, _settings(folder, config or _given(context, "config"), database=database or _given(context, "database"))


def _accounts(context: typer.Context, data: Path | None, database: str | None, config: Path | None) -> Accounts:
    folder, settings = _place(context, data, database, config)
    from seesr.studio.accounts import Accounts
    from seesr.studio.store import Store

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(settings.store_url(folder))
    context.call_on_close(store.close)
    return Accounts(store, settings.session_hours)


def _read_password() -> str:
    if sys.stdin.isatty():
        return typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return sys.stdin.readline().rstrip("\r\n")


def _auth(flag: str | None) -> tuple[str, str] | None:
    """Name and password of the flag, else of the environment, else of a file that it names."""
    text, place = flag, "--auth"
    if text is None:
        text, place = os.environ.get(AUTH), AUTH
    if text is None and (path := os.environ.get(AUTH_FILE)):
        place = path
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise OptionError(f"{AUTH_FILE} is {path}, which cannot be read ({first_line(error)}); correct it.") from None
    if text is None:
        return None
    name, colon, secret = text.partition(":")
    if not colon:
        raise OptionError(f"{place} has no colon; write NAME:PASSWORD.")
    return name, secret


def _workers(devices: str, **settings: Any) -> Mapping[str, Worker]:
    """A worker for each device, none of which has begun."""
    from seesr.job_runner import WorkerSettings
    from seesr.studio.worker.local_worker import LocalWorker

    if sum(settings[name] for name in ("lowvram", "medvram", "no_optimizations")) > 1:
        raise OptionError("give one of --lowvram, --medvram and --no-optimizations.")
    names = [name.strip() for name in devices.split(",")] if devices != "all" else _all_devices()
    if "" in names or len({*names}) < len(names):
        raise OptionError(f"--devices is {devices!r}; give each device once, such as cuda:0,cuda:1.")
    return {name: LocalWorker(WorkerSettings(**settings), name) for name in names}


def _all_devices() -> list[str]:
    """The GPUs, else what `auto` takes; a process of its own counts them, as this one never loads PyTorch."""
    counted = subprocess.run([sys.executable, "-c", COUNT_GPUS], capture_output=True, text=True, check=False)
    if counted.returncode or not counted.stdout.strip().isdecimal():
        raise OptionError("PyTorch cannot be loaded to count the GPUs; name them with --devices cuda:0,cuda:1.")
    return [f"cuda:{number}" for number in range(int(counted.stdout))] or ["auto"]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise OptionError(
            f"{host}, port {port}, cannot be listened at ({first_line(error)}); choose others with --host and --port."
        ) from None


def _print_facts(data: Path, settings: StudioSettings, accounts: Accounts, listener: socket.socket) -> None:
    import psutil

    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(data))
    machine = f"{os.cpu_count()} processors, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    count = len(accounts.users())
    who = f"{count} user{'s' if count > 1 else ''}" if count else "no users: whoever uses this machine is admin"
    print_status(f"seesr {__version__} (Python {platform.python_version()}), {machine}")
    print_status(f"data: {data}, {disk.free / 2**30:.1f} GiB free; {who}")
    host, port = listener.getsockname()[:2]
    print_status(f"studio: http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}/")


def _serve(opened: Studio, accounts: Accounts, settings: StudioSettings, listener: socket.socket) -> None:
    """Answers until Ctrl-C or SIGTERM."""
    import uvicorn

    from seesr.studio.app import create_app
    from seesr.studio.logs import log_config

    config = uvicorn.Config(
        create_app(opened, accounts, settings, page=settings.page),
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=settings.body_bytes,
        log_config=log_config(settings.log_requests),
        access_log=settings.log_requests,
        proxy_headers=False,  # the door resolves them, for the proxies that are trusted
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # which uvicorn raises when all is answered
        print_status("the studio ends; what waits in the queue stays there.")
