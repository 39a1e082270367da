"""Trains the embedded model: RAM, cleaner, and VAE, UNet, ControlNet, text encoder, all small, in the published layout.

    python -m scripts.training ram     --tags TAGGED --work WORK
    python -m scripts.training cleaner --images PHOTOS --work WORK
    python -m scripts.training sr      --images PHOTOS --work WORK
                                       [--ram weights/tiny/ram --cleaner weights/tiny/cleaner]
    python -m scripts.training export  --work WORK --output weights/tiny

and, apart from these, the text-to-image checkpoint and its LoRA:

    python -m scripts.training pictograms --work WORK --output weights/pictograms
    python -m scripts.training line-drawings --work WORK --output LINES.safetensors

They are run from the root of the repository. The weights here took `sr` twice, the second time with `--start`:
weights/README.md has the commands.

Each stage is seeded, writes a checkpoint every two minutes, goes on from it when run again, and logs its losses to
`WORK/<stage>.csv`; `cleaner` and `sr` draw a validation picture every 250 steps and at the end, with the average of weights.
They run on Linux and macOS, on a CPU (in bfloat16 where the CPU is faster in it) or on CUDA.
"""

from __future__ import annotations

import typer

from scripts.training.cleaner import cleaner
from scripts.training.export import export
from scripts.training.line_drawings import line_drawings
from scripts.training.pictograms import pictograms
from scripts.training.ram import ram
from scripts.training.sr import sr

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for command in (ram, cleaner, sr, export, pictograms, line_drawings):
    app.command()(command)

if __name__ == "__main__":
    app()
