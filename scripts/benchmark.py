"""Times the stages of a picture's way: `scripts/start_seesr.sh benchmark --size 128x128 --size 256x192`.

The first run of each size warms up and does not count; of the others the fastest is shown. Pictures are noise: the time
does not depend on what is in them. Compare figures of one run only; a machine's speed changes from hour to hour.
"""

from __future__ import annotations

import json
from typing import Annotated

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from seesr import Options, Upscaler
from seesr.runtime.device import dtype_name


def main(
    size: Annotated[list[str] | None, typer.Option(metavar="WxH", help="Input size; several are timed in turn.")] = None,
    scale: float = 4.0,
    steps: int = 2,
    repeat: Annotated[int, typer.Option(min=1, help="Runs that count, for each size.")] = 2,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON instead of a table.")] = False,
) -> None:
    """Seconds of each stage."""
    upscaler = Upscaler.load(weights, device, dtype)
    options = Options.make(scale=scale, steps=steps, seed=0)
    rows = {}
    for text in size or ["128x128"]:
        try:
            width, height = map(int, text.split("x"))
        except ValueError:
            raise typer.BadParameter(f"size is {text!r}; write it like 128x96.") from None
        picture = Image.effect_noise((width, height), 64).convert("RGB")
        runs = [upscaler.upscale(picture, options).seconds for _ in range(repeat + 1)][1:]
        rows[text] = min(runs, key=lambda run: sum(run.values()))
    record = {
        "weights": upscaler.weights.name,
        "device": str(upscaler.device),
        "dtype": dtype_name(upscaler.dtype),
        "threads": torch.get_num_threads(),
        "seconds": rows,
    }
    if as_json:
        print(json.dumps(record))
        return
    table = Table("input", *next(iter(rows.values())), "sum")
    for name, seconds in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in seconds.values()), f"{sum(seconds.values()):.2f}")
    console = Console()
    console.print(table)
    console.print(f"{record['weights']}, {record['device']} in {record['dtype']}, {record['threads']} threads")


if __name__ == "__main__":
    typer.run(main)
