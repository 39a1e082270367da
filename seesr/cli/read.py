"""`seesr read`: prints the settings that made a picture, as SeeSR, the A1111 web UI or a compatible program wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from seesr.cli.flags import JsonFlag
from seesr.errors import InputError
from seesr.images.encoded import EncodedImage, load_image
from seesr.images.metadata import read_infotext, read_settings
from seesr.options import Limits


def read(
    picture: Annotated[Path, typer.Argument(help="A picture.")],
    as_json: JsonFlag = False,
) -> None:
    """Print the settings that made a picture."""
    settings, infotext = read_both(picture)
    if as_json:
        print(json.dumps({"settings": settings, "infotext": infotext}))
        return
    if infotext is not None:
        print(infotext)
    if settings is not None:
        for name, value in settings.items():
            print(f"{name}: {value}")


def read_both(picture: Path) -> tuple[dict[str, Any] | None, str | None]:
    """SeeSR's own settings in a picture, and its infotext.

    Raises:
        InputError: it is no picture, or has neither.
    """
    limits = Limits.from_environment()
    image = load_image(EncodedImage.read(picture, limits), limits)
    settings, infotext = read_settings(image), read_infotext(image)
    if settings is None and infotext is None:
        raise InputError(f"{picture} holds no settings of SeeSR or of A1111.")
    return settings, infotext
