"""Tags to a prompt, and the tag list with its thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seesr.errors import WeightsError

TAG_FILES = "ram_tag_list.txt", "ram_tag_list_threshold.txt"
"""Names and thresholds, a line each tag."""
QUALITY_WORDS = "clean, high-resolution, 8k"
"""What the published script adds to every prompt."""


@dataclass(frozen=True)
class Tag:
    """One thing that RAM sees in a picture."""

    name: str
    confidence: float
    """0 to 1."""


@dataclass(frozen=True, eq=False)
class TagList:
    """Names of RAM's tags in the order of its logits, and the confidence above which each one counts."""

    names: list[str]
    thresholds: Tensor
    """`(tags,)` in 0..1."""

    def choose(self, logits: Tensor) -> list[Tag]:
        """The tags of one picture's `logits` `(tags,)`, in the list's order, as published."""
        confidences = logits.float().sigmoid().cpu()
        chosen = torch.nonzero(confidences > self.thresholds).flatten().tolist()
        return [Tag(self.names[index], confidences[index].item()) for index in chosen]


def load_tag_list(folder: Path, count: int) -> TagList:
    """Reads `TAG_FILES` for a RAM of `count` tags.

    Raises:
        WeightsError: a file is missing, has not `count` lines, or a threshold is no number.
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
            raise WeightsError(f"{folder / name} has {len(lines)} lines; this RAM knows {count} tags.")
        columns.append(lines)
    try:
        thresholds = torch.tensor([float(line) for line in columns[1]])
    except ValueError as error:
        raise WeightsError(f"{folder / TAG_FILES[1]} has a line that is no number ({error}).") from None
    return TagList([line.strip() for line in columns[0]], thresholds)


def build_prompt(tags: list[str], words: str) -> str:
    """The user's `words`, the `tags`, and the quality words, with commas; empty parts are left out."""
    return ", ".join(part for part in (words.strip().strip(","), *tags, QUALITY_WORDS) if part)
