"""The tagger's pictures: which tags each has, which are held out, and the views of them that it is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from scripts.training.photographs import read_picture, to_tensor
from scripts.training.run import short_digest
from seesr.evaluation.degradation import degrade

SIDE = 192
"""Of the pictures that the tagger sees."""
IMPLIED = {
    "dalmatian": "dog",
    "flamingo": "bird",
    "pigeon": "bird",
    "sunflower": "flower",
    "lotus": "flower",
    "ferry": "boat",
    "schooner": "boat",
    "strawberry": "fruit",
    "banana": "fruit",
    "apple": "fruit",
    "orange": "fruit",
}
"""Tags that others bring along; the pictures' lists often leave them out."""
DEGRADED = 1 / 3
"""Share of bad pictures among those that the tagger is trained on."""
MIN_COUNT = 20
"""Tagged pictures: fewer would leave none to choose thresholds on."""


@dataclass
class TaggedPictures:
    """Pictures and which tags each has."""

    pictures: list[Image.Image]
    labels: Tensor
    """`(pictures, tags)` of 0 and 1."""
    tags: list[str]

    @classmethod
    def read(cls, folder: Path) -> TaggedPictures:
        table = folder / "labels.tsv"
        if not table.is_file():
            raise typer.BadParameter(f"{table} does not exist.")
        lines = [line.split("\t") for line in table.read_text().splitlines() if line]
        if len(lines) < MIN_COUNT or any(len(line) != 2 for line in lines):
            raise typer.BadParameter(
                f"{table} must have {MIN_COUNT} lines or more, each a name, a tab and tags between bars."
            )
        named = [{tag for tag in map(str.strip, names.split("|")) if tag} for _, names in lines]
        tags = sorted(set().union(*named))
        if not tags:
            raise typer.BadParameter(f"{table} names no tag.")
        named = [names | {IMPLIED[tag] for tag in names & IMPLIED.keys()} for names in named]
        labels = torch.tensor([[float(tag in names) for tag in tags] for names in named])
        # Larger than the model's side, so that a crop of half the width is still sharp.
        stored = 3 * SIDE // 2
        pictures = [read_picture(folder / "images" / name).resize((stored, stored)) for name, _ in lines]
        return cls(pictures, labels, tags)

    def digest(self) -> str:
        """What tells these tags and labels from others."""
        return short_digest("\n".join(self.tags).encode(), self.labels.numpy().tobytes())

    @property
    def held_out(self) -> list[int]:
        """What training never sees: thresholds are chosen on them and figures taken."""
        return list(range(9, len(self.pictures), 10))

    @property
    def training(self) -> list[int]:
        return [i for i in range(len(self.pictures)) if i % 10 != 9]

    def whole(self, index: int) -> Tensor:
        """The picture as the tagger sees it in use: `(3, SIDE, SIDE)` in 0..1."""
        return _small(self.pictures[index])

    def degraded(self, index: int, rng: np.random.Generator) -> Tensor:
        """The same of a picture reduced to a quarter on the real way."""
        return _small(degrade(self.pictures[index], rng))

    def view(self, index: int, rng: np.random.Generator) -> Tensor:
        """A random part, `DEGRADED` of all times degraded, mirrored or not, its light and colours a little changed:
        `(3, SIDE, SIDE)` in 0..1."""
        image = self.pictures[index]
        size = int(image.width * rng.uniform(0.55, 1.0))
        left, top = (int(offset) for offset in rng.integers(0, image.width - size + 1, 2))
        image = image.crop((left, top, left + size, top + size))
        pixels = _small(degrade(image, rng) if rng.random() < DEGRADED else image)
        if rng.random() < 0.5:
            pixels = pixels.flip(-1)
        return (pixels * torch.from_numpy(rng.uniform(0.8, 1.2, (3, 1, 1))).float()).clamp(0, 1)


def _small(image: Image.Image) -> Tensor:
    return to_tensor(image.resize((SIDE, SIDE))) / 2 + 0.5
