"""`seesr tags`: prints the tags that RAM recognises in a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from seesr.cli.console import load_upscaler, print_status
from seesr.cli.flags import DeviceFlag, DtypeFlag, JsonFlag, WeightsFlag


def tags(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="A picture.")],
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    weights: WeightsFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the tags that RAM recognises in a picture, in order of confidence."""
    upscaler = load_upscaler(context, weights, device, dtype)
    recognised = sorted(upscaler.tags(image), key=lambda tag: -tag.confidence)
    if as_json:
        print(json.dumps([{"tag": tag.name, "confidence": round(tag.confidence, 4)} for tag in recognised]))
        return
    for tag in recognised:
        print(f"{tag.confidence:.2f}  {tag.name}")
    if not recognised:
        print_status("no tag reaches its threshold.")
