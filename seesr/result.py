"""What comes of a job, and what was done to make it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from seesr.errors import Attempt
from seesr.images.save import save
from seesr.images.sizes import Sizes
from seesr.options import Options, SaveOptions
from seesr.tagging.prompt import Tag
from seesr.version import __version__

FORMER_STAGE_NAMES = {"read": "decode", "vae_decode": "pixels"}
"""What stages were called until 0.1; `Result.record` gives their seconds under both names for one release."""


@dataclass(frozen=True, eq=False)
class Result:
    """A picture that was made."""

    image: Image.Image
    """RGB or RGBA, in the colours of the profile in `image.info["icc_profile"]`, which Pillow's own `save` of a JPEG or WebP
    must be given; without one in sRGB."""
    seed: int
    prompt: str
    options: Options
    """With the number of steps that was used."""
    weights: str
    dtype: str
    """Precision of the networks, such as `bfloat16`."""
    seconds: dict[str, float]
    """Time of each stage, in the order in which they ran; of pictures that ran together, of all of them."""
    notes: list[str]
    """What a user would want to know of how the input was handled and how the picture was made."""
    rung: str
    """The memory plan, by its name: `whole`, `tiled VAE` and so on, as in the README."""
    attempts: list[Attempt]
    """The memory plans tried before, for which memory did not suffice."""
    vae: str
    """`whole`, `exact tiles` or `estimated tiles`."""
    peak_memory: int
    """Bytes that the process used at most, of the device's memory, or on a CPU of the machine's, weights included."""

    def save(self, path: str | os.PathLike[str], options: SaveOptions | None = None, name: str | None = None) -> None:
        """Writes the picture with its profile, the settings that made it and, unless `options` says otherwise, the input's
        EXIF; the suffix decides the format. The file is there whole or as it was before. Errors call it `name`.

        Raises:
            OutputError: a suffix that is not known, or the folder cannot be written to, or is full.
        """
        save(self.image, Path(path), options, self.settings(), name)

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

    def record(self) -> dict[str, Any]:
        """All that is reported of the picture, ready for JSON: by the command, and in the service's log and metrics."""
        seconds = {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}
        former = {FORMER_STAGE_NAMES[stage]: value for stage, value in seconds.items() if stage in FORMER_STAGE_NAMES}
        return {
            "seed": self.seed,
            "prompt": self.prompt,
            "steps": self.options.steps,
            "weights": self.weights,
            "dtype": self.dtype,
            "notes": self.notes,
            "rung": self.rung,
            "attempts": [{"rung": attempt.rung, "reason": attempt.reason} for attempt in self.attempts],
            "vae": self.vae,
            "peak_memory": self.peak_memory,
            "seconds": seconds | former,
        }


@dataclass(frozen=True, eq=False)
class UpscaleResult(Result):
    """An upscaled picture."""

    tags: list[Tag]
    sizes: Sizes
    input: Image.Image
    """The picture that was read: RGB, upright, sRGB."""

    def record(self) -> dict[str, Any]:
        """As `Result.record`, with tags and sizes."""
        return super().record() | {
            "tags": {tag.name: round(tag.confidence, 4) for tag in self.tags},
            "input_size": self.sizes.input,
            "output_size": self.sizes.output,
            "working_size": self.sizes.working,
        }

    def log(self) -> list[str]:
        """What a service's log says, line by line."""
        width, height = self.sizes.output
        stages = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in self.seconds.items())
        return [
            f"seed: {self.seed}",
            f"tags: {', '.join(tag.name for tag in self.tags) or 'none'}",
            f"prompt: {self.prompt}",
            f"size: {width}x{height}, way: {self.rung}, VAE: {self.vae}",
            *(f"memory did not suffice for {attempt.rung}: {attempt.reason}" for attempt in self.attempts),
            *(f"note: {note}" for note in self.notes),
            f"seconds: {sum(self.seconds.values()):.1f} ({stages})",
        ]

    def metrics(self) -> dict[str, Any]:
        """What a service measures, by name."""
        record, (width, height) = self.record(), self.sizes.output
        figures = {"seed": self.seed, "output_width": width, "output_height": height, "rung": self.rung}
        figures |= {"attempts": len(self.attempts), "peak_memory_bytes": self.peak_memory}
        return figures | {f"seconds.{stage}": seconds for stage, seconds in record["seconds"].items()}
