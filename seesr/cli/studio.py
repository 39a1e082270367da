"""`seesr studio`: runs the studio's server; its sub-commands are in the files beside it."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seesr.cli import studio_client, studio_users
from seesr.cli.console import print_status
from seesr.cli.flags import (
    CompiledFlag,
    DtypeFlag,
    LowvramFlag,
    MedvramFlag,
    MemoryLimitFlag,
    ModelsFromFlag,
    NoOptimizationsFlag,
    WeightsFlag,
    use_models_from,
)
from seesr.cli.studio_archive import backup, import_pictures, restore
from seesr.cli.studio_settings import ConfigFlag, DatabaseFlag, DataFlag, read_settings
from seesr.errors import OptionError, first_line
from seesr.files import DATA_VARIABLE, data_folder
from seesr.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seesr.jobs import Worker
    from seesr.studio.accounts import Accounts
    from seesr.studio.settings import StudioSettings
    from seesr.studio.studio import Studio

AUTH, AUTH_FILE = "SEESR_AUTH", "SEESR_AUTH_FILE"
GRACE_SECONDS = 3
"""For answers that are under way when the server is told to end; streams never end by themselves."""
BACKLOG = 100
COUNT_GPUS = "import torch; print(torch.cuda.device_count())"

app = typer.Typer(help="The studio: a server for jobs, users and pictures.", invoke_without_command=True)
app.add_typer(studio_users.app, name="users")
for command in (studio_client.submit, studio_client.jobs, studio_client.cancel, studio_client.gallery, backup, restore):
    app.command()(command)
app.command(name="import")(import_pictures)


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
    lowvram: LowvramFlag = False,
    medvram: MedvramFlag = False,
    no_optimizations: NoOptimizationsFlag = False,
    compiled: CompiledFlag = False,
) -> None:
    """Run the studio until Ctrl-C or SIGTERM."""
    if context.invoked_subcommand is not None:
        return
    from seesr.generation.checkpoint_facts import CHECKPOINT_VARIABLE
    from seesr.studio.accounts import Accounts
    from seesr.studio.studio import Studio
    from seesr.weights.resolve import ENVIRONMENT_VARIABLE

    use_models_from(models_from)
    data = (data or data_folder()).absolute()
    flags = {"host": host, "port": port, "database": database, "root_path": root_path}
    choices = {"outputs": outputs, "webhook_allow": webhook_allow} | ({"sdapi": False} if no_sdapi else {})
    choices |= {"page": False} if no_page else {}
    settings = read_settings(data, config, **flags, **choices)
    if settings.page and importlib.util.find_spec("gradio") is None:
        raise OptionError("the page needs gradio; install it with: pip install 'seesr[studio]', or give --no-page.")
    os.environ[DATA_VARIABLE] = str(data)  # where this process and the workers look for models and styles
    if checkpoint is not None:
        os.environ[CHECKPOINT_VARIABLE] = checkpoint
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

    worker_settings = WorkerSettings(**settings)
    names = [name.strip() for name in devices.split(",")] if devices != "all" else _all_devices()
    if "" in names or len({*names}) < len(names):
        raise OptionError(f"--devices is {devices!r}; give each device once, such as cuda:0,cuda:1.")
    return {name: LocalWorker(worker_settings, name) for name in names}


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
