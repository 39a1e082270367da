"""What the models are told of a picture: what RAM sees in it, and the prompt that is made of that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from seesr.diffusion.tiles import Tiles
from seesr.images.resize import Sizes, part_of_input, to_tensor
from seesr.models import Models, dtype_of, like
from seesr.options import Options
from seesr.runtime.guard import guarded
from seesr.runtime.recent import Recent
from seesr.tagging.prompt import Tag, build_prompt

KEPT_PROMPTS, KEPT_PICTURES = 64, 32
MOST_TILES_SEEN = 1024
"""Tiles of a picture, whose tokens are all in memory."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What RAM sees in a picture, or in a part of it."""

    tags: list[Tag]
    tokens: Tensor
    """`(1, n, 512)`, on the host; n is 145 at full size."""
    notes: list[str]
    """What a user would want to know of how it was computed."""


@dataclass(frozen=True, eq=False)
class Words:
    """A prompt as the text encoder gives it."""

    embeds: Tensor
    """`(1, tokens, width)`, on the host."""
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Conditions:
    """For each tile (or one for all), of each picture, prompt embeddings and image tokens `(1, tokens, width)`."""

    prompt_embeds: list[list[Tensor]]
    image_tokens: list[list[Tensor]]
    notes: list[list[str]]
    """Of each picture, what a user would want to know."""

    def of(self, tiles: list[int]) -> tuple[Tensor, Tensor]:
        """For these tiles, one after the other, of all pictures in each."""
        numbers = tiles if len(self.prompt_embeds) > 1 else [0] * len(tiles)
        kinds = (self.prompt_embeds, self.image_tokens)
        return tuple(torch.cat([one for number in numbers for one in kind[number]]) for kind in kinds)


class Conditioner:
    """Looks at pictures and reads prompts; what it did last it remembers."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._prompts: Recent[Words] = Recent(KEPT_PROMPTS)
        self._seen: Recent[Seen] = Recent(KEPT_PICTURES)

    def look(self, image: Image.Image) -> Seen:
        """RAM on an RGB picture before it is enlarged, as published."""
        ram, notes = self.models.ram, list[str]()

        def compute() -> Seen:
            with self.models.running(ram):
                pixels = to_tensor(image).to(ram.image_proj.weight.device)
                tokens = guarded("tags", [ram], lambda: ram.encode(pixels), notes)
                logits = guarded("tags", [ram], lambda: ram.logits(like(tokens, ram)), notes)
                return Seen(self.models.tag_list.choose(logits[0]), tokens.cpu(), notes)

        return self._seen.get((*self._computed(ram), image.size, hashlib.blake2b(image.tobytes()).digest()), compute)

    def prompt(self, seen: Seen, options: Options) -> str:
        return build_prompt([tag.name for tag in seen.tags] if options.tags else [], options.prompt)

    def embed(self, prompt: str) -> Words:
        """What the text encoder makes of a prompt."""
        encoder, notes = self.models.prompt_encoder, list[str]()

        def compute() -> Words:
            if encoder.tokens(prompt) > encoder.length:
                notes.append(f"the first {encoder.length} tokens of the prompt are read, the rest is cut off")
            with self.models.running(encoder):
                return Words(guarded("prompt", [encoder], lambda: encoder([prompt]), notes).cpu(), notes)

        return self._prompts.get((*self._computed(encoder), prompt), compute)

    def conditions(
        self,
        images: list[Image.Image],
        seen: list[Seen],
        sizes: Sizes,
        tiles: Tiles,
        options: Options,
        tell: Callable[[str, int, int], None],
    ) -> Conditions:
        """Of whole pictures, or with `tile_tags` of what each tile shows; `tell` hears of each tile."""
        count, own, by_tile = len(tiles.corners), list[str](), [seen]
        if options.tile_tags and count > MOST_TILES_SEEN:
            own.append(f"{count} tiles, too many to look at each: tags are the whole picture's")
        elif options.tile_tags and count > 1:
            own.append(f"each of {count} tiles had tags and a prompt of its own")
            by_tile = []
            with self.models.running(self.models.ram):
                for number, corner in enumerate(tiles.corners):
                    tell("tags", number, count)
                    box = self._shown(sizes, tiles, corner)
                    by_tile.append([self.look(image.crop(box)) for image in images])
        prompts = [[self.prompt(one, options) for one in row] for row in by_tile]
        with self.models.running(self.models.prompt_encoder) if len(prompts) > 1 else nullcontext():
            words = [[self.embed(prompt) for prompt in row] for row in prompts]
        told = zip(seen, *by_tile, *words, strict=True)
        return Conditions(
            [[one.embeds for one in row] for row in words],
            [[one.tokens for one in row] for row in by_tile],
            [[*own, *dict.fromkeys(note for one in picture for note in one.notes)] for picture in told],
        )

    def clear(self) -> None:
        """Forgets what it did."""
        self._prompts.clear()
        self._seen.clear()

    def _computed(self, network: nn.Module) -> tuple[torch.device, torch.dtype]:
        """Where, and in which precision: what it gives elsewhere is another thing."""
        return self.models.runs_on, dtype_of(network)

    def _shown(self, sizes: Sizes, tiles: Tiles, corner: tuple[int, int]) -> tuple[int, int, int, int]:
        """The part of the input that a tile shows, as a box for `crop`."""
        factor = self.models.factor
        top, left = (start * factor for start in corner)
        return part_of_input(sizes, (left, top, left + tiles.tile_width * factor, top + tiles.tile_height * factor))
