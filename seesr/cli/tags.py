"""`seesr tags`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from seesr.cli.console import load_upscaler, say
from seesr.cli.flags import Device, Dtype, Json, Weights


def tags(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    device: Device = "auto",
    dtype: Dtype = "auto",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Print what RAM sees in a picture, the most certain first."""
    found = sorted(load_upscaler(weights, device, dtype).tags(image), key=lambda tag: -tag.confidence)
    if as_json:
        print(json.dumps([{"tag": tag.name, "confidence": round(tag.confidence, 4)} for tag in found]))
        return
    for tag in found:
        print(f"{tag.confidence:.2f}  {tag.name}")
    if not found:
        say("no tag is certain enough.")
