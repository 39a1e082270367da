"""What the commands share: options, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Work = Annotated[Path, typer.Option(help="Folder for checkpoints, logs and validation pictures.", file_okay=False)]
Images = Annotated[
    Path, typer.Option(help="Folder of photographs, at best about 512x512, 24 or more.", exists=True, file_okay=False)
]


def require(holds: bool, otherwise: str) -> None:
    """Raises typer.BadParameter with the sentence `otherwise` unless the condition holds."""
    if not holds:
        raise typer.BadParameter(otherwise)
