"""The list of tags with their thresholds, and the prompt made of tags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seesr.errors import WeightsError

TAG_FILES = "ram_tag_list.txt", "ram_tag_list_threshold.txt"
"""Files with the names and the thresholds, one line for each tag."""
QUALITY_WORDS = "clean, high-resolution, 8k"
"""Appended to every prompt, as in the published script."""


@dataclass(frozen=True)
class Tag:
    """Something that RAM recognises in a picture."""

    name: str
    confidence: float
    """0..1."""


@dataclass(frozen=True, eq=False)
class TagList:
    """Names of RAM's tags in the order of its logits, and the confidence above which each tag is chosen."""

    names: list[str]
    thresholds: Tensor
    """`(tags,)` in 0..1."""

    def choose(self, logits: Tensor) -> list[Tag]:
        """The tags of a picture with `logits` `(tags,)` whose confidence is above the threshold, in the list's order."""
        confidences = logits.float().sigmoid().cpu()
        indices = torch.nonzero(confidences > self.thresholds).flatten().tolist()
        return [Tag(self.names[index], confidences[index].item()) for index in indices]


def load_tag_list(folder: Path, count: int) -> TagList:
    """Reads `TAG_FILES` from `folder` for a RAM with `count` tags.

    Raises:
        WeightsError: a file is missing or does not have `count` lines, or a threshold is not a number.
    """
    columns = []
    for name in TAG_FILES:
        try:
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise WeightsError(f"{folder / name} is missing.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise WeightsError(f"{folder / name} cannot be read ({error}).") from error
        if len(lines) != count:
            raise WeightsError(f"{folder / name} has {len(lines)} lines; this RAM has {count} tags.")
        columns.append(lines)
    try:
        thresholds = torch.tensor([float(line) for line in columns[1]])
    except ValueError as error:
        raise WeightsError(f"{folder / TAG_FILES[1]} has a line that is not a number ({error}).") from None
    return TagList([line.strip() for line in columns[0]], thresholds)


def build_prompt(tags: list[str], words: str) -> str:
    """The user's `words`, the `tags` and `QUALITY_WORDS`, separated by commas; empty ones are left out."""
    return ", ".join(phrase for phrase in (words.strip().strip(","), *tags, QUALITY_WORDS) if phrase)
