"""`seesr read`: prints the settings that made a picture, as SeeSR, the A1111 web UI or a compatible program wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image, UnidentifiedImageError

from seesr.cli.flags import JsonFlag
from seesr.errors import InputError
from seesr.images.metadata import read_infotext, read_settings


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
    try:
        with Image.open(picture) as image:
            image.load()  # a PNG's text may stand at its end
            settings, infotext = read_settings(image), read_infotext(image)
    except FileNotFoundError:
        raise InputError(f"{picture} does not exist.") from None
    except UnidentifiedImageError:
        raise InputError(f"{picture} is not a picture in a known format.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{picture} cannot be read ({error}).") from error
    if settings is None and infotext is None:
        raise InputError(f"{picture} holds no settings of SeeSR or of A1111.")
    return settings, infotext
