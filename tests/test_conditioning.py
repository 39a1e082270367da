"""What the denoiser is conditioned on: tags and prompts of pictures and of tiles, and what is remembered of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import hooked, sharing, thumbnail
from PIL import Image

from seesr import Options, OutOfMemoryError, Upscaler
from seesr.planning.ladder import build_ladder
from seesr.tagging.prompt import build_prompt


def test_looking_without_memory_ends_with_a_clear_error(upscaler: Upscaler, small_photo: Image.Image) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("injected")

    with (
        hooked(upscaler.engine.components["ram"].image_proj, fail),
        pytest.raises(OutOfMemoryError, match=r"memory ran out on cpu while RAM looked at 48x40 pixels\."),
    ):
        sharing(upscaler).tags(small_photo)


def test_tile_tags_look_at_each_tile(upscaler: Upscaler, large_photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, tag = list[tuple[int, int]](), upscaler.conditioner.tag
    monkeypatch.setattr(upscaler.conditioner, "tag", lambda image: looked.append(image.size) or tag(image))
    result = upscaler.upscale(large_photo, scale=4.5, steps=1, seed=0, tile=48, tile_overlap=16, tile_tags=True)
    assert looked[0] == (60, 60)
    assert len(looked) == 1 + 4
    assert all(30 <= side <= 45 for size in looked[1:] for side in size)
    assert "each of 4 tiles had tags and a prompt of its own" in result.notes
    other = upscaler.upscale(large_photo, scale=4.5, steps=1, seed=0, tile=48, tile_overlap=16)
    assert result.image.tobytes() != other.image.tobytes()
    assert other.notes == []


def test_time_is_looked_at_between_tiles_with_tags_of_their_own(upscaler: Upscaler, large_photo: Image.Image) -> None:
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "tags" and total > 1:
            told.append((done, total))

    options = {"scale": 4.5, "steps": 1, "tile": 48, "tile_overlap": 16, "tile_tags": True}
    upscaler.upscale(large_photo, progress=progress, **options)
    assert told == [(number, 4) for number in range(4)]


def test_no_more_tiles_are_looked_at_than_fit_into_memory(
    upscaler: Upscaler, large_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seesr.conditioning.MAX_TAGGED_TILES", 3)
    result = upscaler.upscale(large_photo, scale=4.5, steps=1, tile=48, tile_overlap=16, tile_tags=True)
    assert result.notes == ["4 tiles, too many to look at each: tags are the whole picture's"]


def test_a_picture_seen_again_is_not_tagged_again(upscaler: Upscaler, small_photo: Image.Image) -> None:
    calls, fresh = list[int](), sharing(upscaler)
    with hooked(upscaler.engine.components["ram"].image_proj, lambda *_: calls.append(1)):
        for _ in range(3):
            fresh.upscale(small_photo, scale=1, steps=1)
    assert len(calls) == 1


@pytest.mark.parametrize("tries", [1, 2])
def test_the_denoiser_is_told_of_each_picture_what_is_in_it(upscaler: Upscaler, tries: int) -> None:
    photos = [thumbnail(name) for name in ("coffee.png", "rocket.jpg")]
    told = list[tuple[torch.Tensor, torch.Tensor]]()
    upscaler = sharing(
        upscaler, ladder=lambda *values: [replace(plan, tiles_per_pass=tries) for plan in build_ladder(*values)]
    )
    options = Options(scale=2, steps=1, seed=0, prompt="fur", kds=tries > 1, kds_particles=tries)
    with hooked(upscaler.networks.denoiser, lambda _, given: told.append(given[3:5])):
        results = upscaler.upscale_many(photos, options, together=2)
    for result in results:
        assert result.prompt == build_prompt([tag.name for tag in result.tags], "fur")
    assert results[0].prompt != results[1].prompt
    ((embeds, tokens),) = told
    with torch.inference_mode():
        words = torch.cat([upscaler.engine.components["prompt_encoder"]([result.prompt]) for result in results])
    seen = torch.cat([upscaler.conditioner.tag(photo).image_tokens for photo in photos])
    assert torch.equal(embeds, words.repeat_interleave(tries, dim=0))
    assert torch.equal(tokens, seen.repeat_interleave(tries, dim=0))


def test_no_tags_leaves_only_words(upscaler: Upscaler, small_photo: Image.Image) -> None:
    result = upscaler.upscale(small_photo, seed=0, scale=1, steps=1, tags=False, prompt="fur")
    assert result.prompt == "fur, clean, high-resolution, 8k"


def test_a_prompt_that_is_too_long_is_said(upscaler: Upscaler, small_photo: Image.Image) -> None:
    for _ in range(2):  # the second time it is remembered
        result = upscaler.upscale(small_photo, seed=0, scale=1, steps=1, tags=False, prompt="fur and grass, " * 60)
        assert result.notes == ["the first 77 tokens of the prompt are read, the rest is cut off"]
    assert not upscaler.upscale(small_photo, seed=0, scale=1, steps=1, tags=False, prompt="fur").notes


def test_of_pictures_in_one_pass_each_has_its_own_notes(upscaler: Upscaler) -> None:
    with_tags, without = photos = [thumbnail(name) for name in ("coffee.png", "chelsea.png")]
    conditioner, encoder = upscaler.conditioner, upscaler.engine.components["prompt_encoder"]

    def tokens(photo: Image.Image, words: str) -> int:
        return encoder.count_tokens(conditioner.prompt(conditioner.tag(photo), Options(prompt=words)))

    words = next(words for count in range(1, 80) if tokens(with_tags, words := "fur " * count) > encoder.max_tokens)
    assert tokens(without, words) <= encoder.max_tokens
    results = upscaler.upscale_many(photos, together=2, scale=2, steps=1, seed=0, prompt=words)
    assert [result.notes for result in results] == [["the first 77 tokens of the prompt are read, the rest is cut off"], []]


def test_what_was_seen_in_another_precision_is_seen_anew(upscaler: Upscaler, small_photo: Image.Image) -> None:
    conditioner, ram = upscaler.conditioner, upscaler.engine.components["ram"]
    first = conditioner.tag(small_photo)
    # Back and forth in float64 loses nothing.
    ram.double()
    try:
        assert conditioner._computed_in("ram")[1] == torch.float64
        assert conditioner.tag(small_photo) is not first
    finally:
        ram.float()
    assert conditioner.tag(small_photo) is first
