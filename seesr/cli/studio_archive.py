"""`seesr studio backup|restore|import`: what a studio keeps, as a file, and pictures that come from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seesr.cli.console import EXIT_FAILED, print_status
from seesr.cli.studio_settings import ConfigFlag, DatabaseFlag, DataFlag, chosen_data, data_and_settings
from seesr.errors import OptionError

if TYPE_CHECKING:
    from seesr.studio.store import Store


def backup(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(help="A .tar file, which must not exist.")],
    data: DataFlag = None,
    database: DatabaseFlag = None,
    config: ConfigFlag = None,
) -> None:
    """Write the store, the pictures and the settings into a file; the studio may run."""
    from seesr.studio import backup as archive

    folder, settings = data_and_settings(context, data, database, config)
    count = archive.backup(folder, settings.store_url(folder), target)
    print_status(f"{target}: {count} pictures, {target.stat().st_size / 1e6:.1f} MB.")


def restore(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A file of `seesr studio backup`.")],
    data: DataFlag = None,
) -> None:
    """Unpack a backup into a data folder that holds no studio yet."""
    from seesr.studio import backup as archive

    folder = chosen_data(context, data)
    print_status(f"{folder}: {archive.restore(source, folder)} pictures.")


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
    place, settings = data_and_settings(context, data, database, config)
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
