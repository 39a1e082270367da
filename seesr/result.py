"""What comes of a picture, and what was done to make it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from seesr.errors import Attempt
from seesr.images.resize import Sizes
from seesr.images.save import save
from seesr.options import Options, SaveOptions
from seesr.tagging.prompt import Tag
from seesr.version import __version__


@dataclass(frozen=True, eq=False)
class Result:
    """An upscaled picture."""

    image: Image.Image
    """RGB or RGBA, in the colours of the profile in `image.info["icc_profile"]`, which Pillow's own `save` of a JPEG or WebP
    must be given; without one in sRGB."""
    seed: int
    tags: list[Tag]
    prompt: str
    sizes: Sizes
    seconds: dict[str, float]
    """Time of each stage, in the order in which they ran; of pictures that ran together, of all of them."""
    weights: str
    dtype: str
    """Precision of the models, such as `bfloat16`."""
    options: Options
    notes: list[str]
    """What a user would want to know of how the input was handled and the way went."""
    rung: str
    """The way through the memory, by its name: `whole`, `tiled VAE` and so on, as in the README."""
    attempts: list[Attempt]
    """The ways tried before, for which memory did not suffice."""
    vae: str
    """`whole`, `exact tiles` or `estimated tiles`."""
    peak_memory: int
    """Bytes that the process used at most, of the device's memory, or on a CPU of the machine's, weights included."""

    def save(self, path: str | os.PathLike[str], options: SaveOptions | None = None) -> None:
        """Writes the picture with its profile, the settings that made it and, unless `options` says otherwise, the input's
        EXIF; the suffix decides the format. The file is there whole or as it was before.

        Raises:
            OutputError: a suffix that is not known, or the folder cannot be written to, or is full.
        """
        save(self.image, Path(path), options, self.settings())

    def settings(self) -> dict[str, Any]:
        """What made the picture, to be written into its file: enough to make it again."""
        return {
            "version": __version__,
            "weights": self.weights,
            "dtype": self.dtype,
            **self.options.model_dump(exclude_none=True),
            "seed": self.seed,
            "prompt": self.prompt,
            "words": self.options.prompt,
            "rung": self.rung,
        }
