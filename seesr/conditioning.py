"""What the denoiser is conditioned on: RAM's tags and image tokens, and the embeddings of the prompt made of the tags."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from seesr.autoencoder.vae import vae_scale_factor
from seesr.components import Components
from seesr.images.resize import to_tensor
from seesr.images.sizes import Sizes, to_input_box
from seesr.lru_cache import LRUCache
from seesr.machine.device import dtype_of, to_device_of
from seesr.notes import Notes, add_to_all
from seesr.options import Options
from seesr.planning.nan_guard import run_with_nan_guard
from seesr.stages import Progress
from seesr.tagging.prompt import Tag, TagList, build_prompt
from seesr.tiling import Tiles

CACHED_PROMPTS, CACHED_PICTURES = 64, 32
MAX_TAGGED_TILES = 1024
"""Of a picture with more tiles than these none is tagged by itself, because the image tokens of all would be in memory."""


@dataclass(frozen=True, eq=False)
class Tagging:
    """What RAM finds in a picture, or in a part of it."""

    tags: list[Tag]
    image_tokens: Tensor
    """`(1, n, 512)`, on the host; n is 145 for the full model."""
    notes: Notes


@dataclass(frozen=True, eq=False)
class PromptEmbeds:
    """The text encoder's output for one prompt."""

    embeds: Tensor
    """`(1, tokens, width)`, on the host."""
    notes: Notes


@dataclass(frozen=True, eq=False)
class Conditions:
    """Prompt embeddings and image tokens by tile and picture: `image_tokens[tile][picture]` is `(1, tokens, channels)`.

    Where all tiles share them, there is one entry for all.
    """

    prompt_embeds: list[list[Tensor]]
    image_tokens: list[list[Tensor]]

    def for_tiles(self, tiles: list[int]) -> tuple[Tensor, Tensor]:
        """Prompt embeddings and image tokens of tiles, by number: each `(len(tiles) * pictures, tokens, channels)`.

        They are ordered by tile, then by picture.
        """
        entries = tiles if len(self.prompt_embeds) > 1 else [0] * len(tiles)
        embeds = torch.cat([tensor for entry in entries for tensor in self.prompt_embeds[entry]])
        return embeds, torch.cat([tensor for entry in entries for tensor in self.image_tokens[entry]])


class Conditioner:
    """Tags pictures and embeds prompts, and keeps the last results in caches."""

    def __init__(self, components: Components, tag_list: TagList) -> None:
        self.components, self.tag_list = components, tag_list
        self._prompts: LRUCache[PromptEmbeds] = LRUCache(CACHED_PROMPTS)
        self._taggings: LRUCache[Tagging] = LRUCache(CACHED_PICTURES)

    def tag(self, image: Image.Image) -> Tagging:
        """Runs RAM on an RGB picture of the input's size, as the published code does."""
        ram, notes = self.components["ram"], Notes()

        def compute() -> Tagging:
            with self.components.running("ram"):
                pixels = to_tensor(image).to(ram.image_proj.weight.device)
                tokens = run_with_nan_guard("tags", [ram], lambda: ram.encode(pixels), [notes])
                logits = run_with_nan_guard("tags", [ram], lambda: ram.logits(to_device_of(tokens, ram)), [notes])
                return Tagging(self.tag_list.choose(logits[0]), tokens.cpu(), notes)

        key = (*self._computed_in("ram"), image.size, hashlib.blake2b(image.tobytes()).digest())
        return self._taggings.get(key, compute)

    def prompt(self, tagging: Tagging, options: Options) -> str:
        return build_prompt([tag.name for tag in tagging.tags] if options.tags else [], options.prompt)

    def embed(self, prompt: str) -> PromptEmbeds:
        """Runs the text encoder on a prompt."""
        encoder, notes = self.components["prompt_encoder"], Notes()

        def compute() -> PromptEmbeds:
            if encoder.count_tokens(prompt) > encoder.max_tokens:
                notes.add(f"the first {encoder.max_tokens} tokens of the prompt are read, the rest is cut off")
            with self.components.running("prompt_encoder"):
                return PromptEmbeds(run_with_nan_guard("prompt", [encoder], lambda: encoder([prompt]), [notes]).cpu(), notes)

        return self._prompts.get((*self._computed_in("prompt_encoder"), prompt), compute)

    def conditions(
        self,
        images: list[Image.Image],
        taggings: list[Tagging],
        sizes: Sizes,
        tiles: Tiles,
        options: Options,
        report: Progress,
        notes: Sequence[Notes],
    ) -> Conditions:
        """The conditions of pictures of one size: one for the whole picture or, with `options.tile_tags`, one for each tile.

        Args:
            images: the inputs, RGB.
            taggings: of the whole inputs.
            notes: of each picture; what the user should know is added.

        `report` is called with each tile that is tagged.
        """
        count, by_tile = len(tiles.corners), [taggings]
        if options.tile_tags and count > MAX_TAGGED_TILES:
            add_to_all(notes, f"{count} tiles, too many to look at each: tags are the whole picture's")
        elif options.tile_tags and count > 1:
            add_to_all(notes, f"each of {count} tiles had tags and a prompt of its own")
            by_tile = []
            with self.components.running("ram"):
                for number, corner in enumerate(tiles.corners):
                    report("tags", number, count)
                    box = self._box_of_tile(sizes, tiles, corner)
                    by_tile.append([self.tag(image.crop(box)) for image in images])
        prompts = [[self.prompt(tagging, options) for tagging in row] for row in by_tile]
        # For many prompts it stays on the device from the first to the last.
        with self.components.running("prompt_encoder") if len(prompts) > 1 else nullcontext():
            embeds = [[self.embed(prompt) for prompt in row] for row in prompts]
        for row in [taggings, *by_tile, *embeds]:
            for of_picture, source in zip(notes, row, strict=True):
                of_picture.add(*source.notes)
        return Conditions(
            [[prompt.embeds for prompt in row] for row in embeds],
            [[tagging.image_tokens for tagging in row] for row in by_tile],
        )

    def clear(self) -> None:
        """Empties the caches."""
        self._prompts.clear()
        self._taggings.clear()

    def _computed_in(self, name: str) -> tuple[torch.device, torch.dtype]:
        """Device and precision of a network: part of the caches' keys, because its output differs between them."""
        return self.components.runs_on, dtype_of(self.components[name])

    def _box_of_tile(self, sizes: Sizes, tiles: Tiles, corner: tuple[int, int]) -> tuple[int, int, int, int]:
        """The part of the input that a tile shows, as a box for `crop`."""
        factor = vae_scale_factor(self.components["vae"])
        top, left = (start * factor for start in corner)
        return to_input_box(sizes, (left, top, left + tiles.tile_width * factor, top + tiles.tile_height * factor))
