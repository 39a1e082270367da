"""`seesr studio users`: who may log in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seesr.cli.console import print_status
from seesr.cli.studio_settings import ConfigFlag, DatabaseFlag, DataFlag, data_and_settings

if TYPE_CHECKING:
    from seesr.studio.accounts import Accounts
    from seesr.studio.records import Role

app = typer.Typer(help="Who may log in.", no_args_is_help=True)


@app.command()
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


@app.command()
def password(
    context: typer.Context, name: str, data: DataFlag = None, database: DatabaseFlag = None, config: ConfigFlag = None
) -> None:
    """Change a user's password, with which all sessions of the user end."""
    _accounts(context, data, database, config).set_password(name, _read_password())


@app.command()
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

    folder, settings = data_and_settings(context, data, database, config)
    if not yes:
        typer.confirm(f"Remove {name} with all jobs and pictures?", abort=True, err=True)
    # Without workers and without a start the queue rests.
    with Studio.open(folder, settings, {}, start=False) as opened:
        opened.delete_user(User(name=LOCAL, role="admin"), name)


@app.command(name="list")
def list_users(
    context: typer.Context, data: DataFlag = None, database: DatabaseFlag = None, config: ConfigFlag = None
) -> None:
    """Show the users, and the ids of their keys."""
    accounts = _accounts(context, data, database, config)
    for user in accounts.users():
        print(f"{user.name}  {user.role}")
        for key in accounts.keys(user.name):
            print(f"  key {key.id}  {key.created:%Y-%m-%d}  {key.label}")


@app.command()
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


def _accounts(context: typer.Context, data: Path | None, database: str | None, config: Path | None) -> Accounts:
    folder, settings = data_and_settings(context, data, database, config)
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
