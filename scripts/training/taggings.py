"""What RAM says of the training photographs: the denoiser's image tokens and the tags of the prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scripts.training.photographs import Photographs, to_tensor
from seesr.evaluation.degradation import degrade
from seesr.tagging.prompt import build_prompt, load_tag_list
from seesr.tagging.ram import load_ram

MAX_TAGS = 3
"""In a prompt. The tagger gives tags only where it is sure, which would teach the prompt's use too rarely."""


@dataclass
class Taggings:
    """Of each photograph the image tokens of a degraded version, and the tags that RAM is surest of in the sharp one."""

    image_tokens: Tensor
    """`(photographs, n, 512)`, float16."""
    tags: list[list[str]]
    """`MAX_TAGS` of each, surest first."""
    names: list[str]
    """All tags there are."""

    def prompt(self, index: int, rng: np.random.Generator) -> str:
        """A prompt with a random number of a photograph's tags, often with none."""
        return build_prompt(self.tags[index][: max(0, int(rng.integers(-1, MAX_TAGS + 1)))], "")


def tag_photographs(photographs: Photographs, ram_folder: Path, device: torch.device) -> Taggings:
    """Runs the RAM of a `ram/` folder on each photograph."""
    ram = load_ram(ram_folder).to(device)
    names = load_tag_list(ram_folder, ram.config.num_tags).names
    rng, image_tokens, tags = np.random.default_rng(0), [], []
    with torch.no_grad():
        for image in photographs.images:
            bad, sharp = ((to_tensor(one) / 2 + 0.5)[None].to(device) for one in (degrade(image, rng), image))
            image_tokens.append(ram(bad)[0].half().cpu())
            surest = ram(sharp)[1][0].topk(MAX_TAGS).indices
            tags.append([names[i] for i in surest])
    return Taggings(torch.cat(image_tokens), tags, names)
