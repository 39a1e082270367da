"""The data folder and the settings of the studio that a sub-command of `seesr studio` is for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seesr.errors import OptionError
from seesr.files import data_folder

if TYPE_CHECKING:
    from seesr.studio.settings import StudioSettings

EXTRA = ("alembic", "argon2", "fastapi", "prometheus_client", "sqlalchemy", "uvicorn", "websockets")
"""Packages of the extra `studio`."""

DataFlag = Annotated[
    Path | None, typer.Option(help="Folder of the store, the pictures and the models; by default SEESR_DATA, else your own.")
]
DatabaseFlag = Annotated[str | None, typer.Option(help="URL of the store, such as postgresql://seesr@db/seesr.")]
ConfigFlag = Annotated[Path | None, typer.Option(help="Settings; by default studio.toml in the data folder.")]


def read_settings(data: Path, config: Path | None, **flags: Any) -> StudioSettings:
    """The settings of a data folder.

    Raises:
        OptionError: the extra `studio` is not installed, `config` is not there, or a setting is invalid.
    """
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise OptionError(f"the studio needs {missing[0]}; install it with: pip install 'seesr[studio]'")
    from seesr.studio.settings import FILE, StudioSettings

    if config is not None and not config.is_file():
        raise OptionError(f"there is no file {config}; name another with --config.")
    return StudioSettings.read(config or data / FILE, **flags)


def chosen_data(context: typer.Context, data: Path | None) -> Path:
    """The data folder that a sub-command is for."""
    return (data or _given_before(context, "data") or data_folder()).absolute()


def data_and_settings(
    context: typer.Context, data: Path | None, database: str | None, config: Path | None
) -> tuple[Path, StudioSettings]:
    """The data folder and the settings that a sub-command is for."""
    folder, database = chosen_data(context, data), database or _given_before(context, "database")
    return folder, read_settings(folder, config or _given_before(context, "config"), database=database)


def _given_before(context: typer.Context, name: str) -> Any:
    """What was given before the sub-command: `seesr studio --data DIR users list`."""
    parent = context.parent
    while parent is not None:
        if parent.params.get(name) is not None:
            return parent.params[name]
        parent = parent.parent
    return None
