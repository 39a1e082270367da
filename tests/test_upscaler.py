"""The way of a picture with the embedded model: what comes out, and that it comes out the same again."""

from __future__ import annotations

import io
import json
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from helpers import PHOTOS, difference, encoded, hooked, photograph, sharing, thumbnail, watching
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFilter, ImageSequence
from torch import Tensor, nn

from seesr import InputError, OptionError, Options, Upscaler
from seesr.evaluation.seams import seam_ratio, tile_borders
from seesr.images.colour import COLOR_FIXES
from seesr.kernels.inplace import InplaceResnet
from seesr.options import Limits
from seesr.tiling import Tiles
from seesr.weights.resolve import WeightsFolder


def test_forced_small_tiles_leave_no_seam(upscaler: Upscaler) -> None:
    photo = photograph("astronaut.png", (100, 0, 180, 80))
    tiled = upscaler.upscale(photo, scale=4, steps=2, seed=0, tile=48, tile_overlap=16, vae_tile=32)
    whole = upscaler.upscale(photo, scale=4, steps=2, seed=0, tile=0, vae_tile=0)
    height, width = (side // 4 for side in tiled.sizes.padded[::-1])
    borders = tile_borders(Tiles(height, width, 48, 16), 4, tiled.sizes)
    assert min(map(len, borders)) >= 2
    # The same lines without tiles: what the picture itself has there does not count.
    assert seam_ratio(tiled.image, *borders) == pytest.approx(seam_ratio(whole.image, *borders), rel=0.05)
    assert seam_ratio(tiled.image, *borders, period=4) == pytest.approx(1, abs=0.25)


def edges(image: Image.Image) -> float:
    """How strong they are, in grey levels."""
    return np.asarray(image.convert("L").filter(ImageFilter.FIND_EDGES), dtype=float)[2:-2, 2:-2].mean()


def test_result_is_four_times_larger_and_says_what_was_done(upscaler: Upscaler, small_photo: Image.Image) -> None:
    seen = []
    result = upscaler.upscale(small_photo, seed=1, prompt="a cat", progress=lambda *event: seen.append(event))
    assert result.image.size == (192, 160)
    assert result.seed == 1
    assert result.prompt.startswith("a cat, ")
    assert result.weights == "tiny (embedded)"
    assert list(result.seconds) == [
        "read",
        "clean",
        "resize",
        "tags",
        "prompt",
        "encode",
        "denoise",
        "vae_decode",
        "colour",
        "finish",
    ]
    assert ("denoise", 1, 1) in seen
    assert seen[-1] == ("done", 1, 1)


def test_result_is_the_same_scene_sharper_than_bicubic(upscaler: Upscaler) -> None:
    truth = photograph("astronaut.png", (130, 20, 322, 212))
    low = truth.resize((48, 48), Image.Resampling.BICUBIC)
    bicubic = low.resize(truth.size, Image.Resampling.BICUBIC)
    result = upscaler.upscale(low, seed=0).image
    assert difference(result, bicubic) < 12
    assert difference(result.resize(low.size, Image.Resampling.BOX), low) < 6, "brightness and colour stay"
    assert edges(result) > 1.15 * edges(bicubic)


def test_same_seed_same_picture_another_seed_another(upscaler: Upscaler, small_photo: Image.Image) -> None:
    first, again, other = (upscaler.upscale(small_photo, seed=seed, scale=2).image for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_a_seed_is_drawn_and_reported(upscaler: Upscaler, small_photo: Image.Image) -> None:
    drawn = upscaler.upscale(small_photo, scale=2, steps=1)
    again = upscaler.upscale(small_photo, scale=2, steps=1, seed=drawn.seed)
    assert drawn.image.tobytes() == again.image.tobytes()


def test_path_bytes_image_and_array_give_the_same(upscaler: Upscaler, tmp_path: Path, small_photo: Image.Image) -> None:
    path = tmp_path / "photo.png"
    small_photo.save(path)
    sources = (path, str(path), path.read_bytes(), small_photo, np.asarray(small_photo))
    results = {upscaler.upscale(source, seed=0, scale=1, steps=1).image.tobytes() for source in sources}
    assert len(results) == 1


def test_threads_share_one_upscaler_and_take_turns(upscaler: Upscaler) -> None:
    photos = [thumbnail(name) for name in ("coffee.png", "rocket.jpg", "chelsea.png")]
    alone = [upscaler.upscale(photo, seed=3, scale=2, steps=1).image.tobytes() for photo in photos]
    stages, found = list[str](), dict[int, bytes]()

    def enter(stage: str) -> None:
        stages.append(stage)
        time.sleep(0.002)

    shared = sharing(upscaler, stages=watching(enter))

    def work(number: int) -> None:
        found[number] = shared.upscale(photos[number], seed=3, scale=2, steps=1).image.tobytes()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stages == stages[: len(stages) // 3] * 3, "one picture after the other"
    assert [found[number] for number in range(3)] == alone


def test_tiles_cover_a_picture_larger_than_a_tile(upscaler: Upscaler) -> None:
    tiles = list[int]()
    photo = photograph("coffee.png", (100, 60, 240, 110))
    with hooked(upscaler.networks.denoiser, lambda _, given: tiles.append(len(given[0]))):
        tiled = upscaler.upscale(photo, seed=0, steps=1, tile=48, tile_overlap=16).image
        assert sum(tiles) == 8
        whole = upscaler.upscale(photo, seed=0, steps=1, tile=0).image
    assert sum(tiles) == 8 + 1
    assert tiled.size == (560, 200)
    assert difference(tiled, whole) < 0.5


def test_options_change_the_picture(upscaler: Upscaler, small_photo: Image.Image) -> None:
    variants = [{}, {"steps": 2}, {"color_fix": "adain"}, {"color_fix": "none"}, {"sharpen": 1}, {"conditioning_scale": 0.5}]
    results = {upscaler.upscale(small_photo, seed=0, scale=2, **values).image.tobytes() for values in variants}
    assert len(results) == len(variants)


def test_sharpening_makes_edges_stronger(upscaler: Upscaler, small_photo: Image.Image) -> None:
    plain, sharp = (upscaler.upscale(small_photo, seed=0, scale=2, steps=1, sharpen=strength).image for strength in (0, 1))
    assert edges(sharp) > 1.2 * edges(plain)


def test_bfloat16_gives_nearly_the_same_picture(upscaler: Upscaler, small_photo: Image.Image) -> None:
    coarse = Upscaler.load(device="cpu", dtype="bfloat16").upscale(small_photo, seed=0, scale=2, steps=1)
    exact = upscaler.upscale(small_photo, seed=0, scale=2, steps=1)
    assert difference(coarse.image, exact.image) < 4


def test_alpha_and_profile_come_back(upscaler: Upscaler, small_photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo, alpha = small_photo.copy(), small_photo.getchannel("G")
    photo.putalpha(alpha)
    photo.info["icc_profile"] = profile
    image = upscaler.upscale(photo, seed=0, scale=2, steps=1).image
    assert image.mode == "RGBA"
    assert difference(image.getchannel("A"), alpha.resize(image.size, Image.Resampling.BICUBIC)) < 1
    assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "I;16", "RGBA"])
def test_modes(upscaler: Upscaler, small_photo: Image.Image, mode: str) -> None:
    if mode == "I;16":
        photo = Image.fromarray(np.asarray(small_photo.convert("L")).astype(np.uint16) * 257)
    else:
        photo = small_photo.convert(mode)
    buffer = io.BytesIO()
    photo.save(buffer, "TIFF")
    result = upscaler.upscale(buffer.getvalue(), seed=0, scale=1, steps=1)
    assert result.image.size == small_photo.size
    # 1-bit dithering and palettes change pixels, not the picture.
    blurred = [image.convert("L").filter(ImageFilter.GaussianBlur(6)) for image in (result.image, small_photo)]
    assert difference(*blurred) < 25


def test_turned_by_exif(upscaler: Upscaler, small_photo: Image.Image) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    small_photo.save(buffer, "JPEG", exif=exif)
    width, height = small_photo.size
    assert upscaler.upscale(buffer.getvalue(), seed=0, scale=1, steps=1).image.size == (height, width)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"hello", "not a picture"), (b"\x89PNG\r\n\x1a\n" + b"0" * 40, "not a picture|damaged")],
)
def test_bad_bytes_are_refused_in_one_sentence(upscaler: Upscaler, content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        upscaler.upscale(content)


def test_a_cut_file_is_refused(upscaler: Upscaler) -> None:
    content = (PHOTOS / "chelsea.png").read_bytes()
    with pytest.raises(InputError, match="cut short"):
        upscaler.upscale(content[: len(content) // 2])


def test_a_bomb_is_refused_before_it_is_decoded(upscaler: Upscaler) -> None:
    for side, words in (
        (12000, r"12000x12000, 144,000,000 pixels; at most 64,000,000"),
        (20000, "20000x20000, 400,000,000 pixels; at most 64,000,000"),
    ):
        buffer = io.BytesIO()
        Image.new("1", (side, side)).save(buffer, "PNG")
        with pytest.raises(InputError, match=words):
            upscaler.upscale(buffer.getvalue())


def test_a_result_beyond_the_limit_names_the_scale_that_fits(upscaler: Upscaler) -> None:
    with pytest.raises(OptionError, match=r"16000x1600; at most 8192 .* a scale of 4.09 or less"):
        upscaler.upscale(Image.new("RGB", (2000, 200)), scale=8)
    with pytest.raises(OptionError, match=r"at most 8192 .* ask for a longer side of 8192 or less"):
        upscaler.upscale(Image.new("RGB", (20, 20)), max_side=10000)
    with pytest.raises(OptionError, match=r"at most 8192 .* make its longer side 2048 pixels or less first"):
        upscaler.upscale(Image.new("RGB", (9000, 400)))
    with pytest.raises(OptionError, match="8192x1 result is too narrow"):
        upscaler.upscale(Image.new("RGB", (8192, 1)), scale=1)


def test_one_pixel(upscaler: Upscaler) -> None:
    image = upscaler.upscale(Image.new("RGB", (1, 1), "teal"), seed=0, steps=1).image
    assert image.size == (4, 4)
    assert difference(image, Image.new("RGB", (4, 4), "teal")) < 3


def test_options_come_at_once_or_by_name(upscaler: Upscaler, small_photo: Image.Image) -> None:
    with pytest.raises(OptionError, match="give options, or scale, seed by name, not both"):
        upscaler.upscale(small_photo, Options(), scale=2, seed=1)


def with_defaults(upscaler: Upscaler, folder: Path, **defaults: object) -> Upscaler:
    """An upscaler on the same networks, of a weights folder with other defaults."""
    for path in upscaler.weights.root.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "seesr.json").unlink()
    (folder / "seesr.json").write_text(json.dumps(defaults))
    return Upscaler(upscaler.engine, WeightsFolder(folder, "other"))


def test_without_steps_those_of_the_weights_are_used_and_reported(
    upscaler: Upscaler, small_photo: Image.Image, tmp_path: Path
) -> None:
    assert upscaler.weights.defaults.steps == 1, "a second one gains nothing with the embedded model"
    slow = with_defaults(upscaler, tmp_path, steps=2)
    result, asked = (slow.upscale(small_photo, scale=1, seed=0, steps=steps) for steps in (None, 2))
    assert result.image.tobytes() == asked.image.tobytes()
    assert result.options.steps == result.record()["steps"] == result.settings()["steps"] == 2
    assert slow.upscale(small_photo, scale=1, seed=0, steps=1).record()["steps"] == 1


def test_a_record_has_the_former_names_of_stages_too(upscaler: Upscaler, small_photo: Image.Image) -> None:
    result = upscaler.upscale(small_photo, scale=1, seed=0, steps=1)
    assert not {"decode", "pixels"} & result.seconds.keys()
    seconds = result.record()["seconds"]
    assert (seconds["decode"], seconds["pixels"]) == (seconds["read"], seconds["vae_decode"])
    json.dumps(result.record())


def test_the_vae_is_lean_and_convolutions_lie_channels_last(upscaler: Upscaler) -> None:
    vae, denoiser = upscaler.engine.components["vae"], upscaler.networks.denoiser
    kinds = {type(module) for module in vae.modules()}
    assert InplaceResnet in kinds
    assert ResnetBlock2D not in kinds
    for network in (vae, denoiser):
        weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
        square = [weight for weight in weights if weight.shape[2:] == (3, 3)]
        assert square
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in square)


@pytest.mark.parametrize("margin", [0, 2])
def test_networks_see_the_picture_with_the_margin_its_weights_want(
    upscaler: Upscaler, small_photo: Image.Image, tmp_path: Path, margin: int
) -> None:
    upscaler = with_defaults(upscaler, tmp_path, margin=margin)
    seen: list[torch.Size] = []
    with hooked(upscaler.networks.denoiser, lambda _, given: seen.append(given[2].shape)):
        image = upscaler.upscale(small_photo, steps=1, seed=0).image
    assert image.size == (192, 160)
    assert seen == [(1, 3, 160 + 2 * 4 * margin, 192 + 2 * 4 * margin)]


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(4, 60), height=st.integers(4, 60), scale=st.floats(1, 3))
def test_any_small_size(upscaler: Upscaler, width: int, height: int, scale: float) -> None:
    photo = photograph("rocket.jpg", (300, 100, 300 + width, 100 + height))
    image = upscaler.upscale(photo, seed=0, scale=scale, steps=1).image
    assert image.size == (round(width * scale), round(height * scale))


def test_a_picture_does_not_depend_on_its_batch(upscaler: Upscaler) -> None:
    photo = photograph("chelsea.png")
    parts = [photo.crop((x, 50, x + 40, 90)) for x in (50, 120, 190)]
    together = upscaler.upscale_many([*parts, photo.crop((0, 0, 30, 30))], together=8, scale=2, steps=2, seed=1)
    assert [result.image.size for result in together] == [(80, 80)] * 3 + [(60, 60)]
    assert together[0].seconds is together[2].seconds, "they ran together"
    for part, result in zip(parts, together, strict=False):
        alone = upscaler.upscale(part, scale=2, steps=2, seed=1).image
        assert np.abs(np.asarray(alone, dtype=int) - np.asarray(result.image, dtype=int)).max() <= 1


def test_batches_agree_in_float32(upscaler: Upscaler) -> None:
    photo = photograph("chelsea.png")
    parts = [photo.crop((x, 50, x + 40, 90)) for x in (50, 120)]
    captured: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COLOR_FIXES, "none", lambda target, source: captured.append(target) or target)
        upscaler.upscale_many(parts, together=2, scale=2, steps=2, seed=1, color_fix="none")
        for part in parts:
            upscaler.upscale(part, scale=2, steps=2, seed=1, color_fix="none")
    together, *alone = captured
    assert (together - torch.cat(alone)).abs().max() <= 1e-4


def test_each_frame_is_what_it_is_alone_and_all_have_one_seed(upscaler: Upscaler, tmp_path: Path) -> None:
    frames = [photograph("chelsea.png", (150 + 8 * number, 80, 182 + 8 * number, 104)) for number in range(3)]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=[70, 30, 500], loop=2)
    progress = list[tuple[str, int, int]]()
    made = upscaler.upscale_frames(content, progress=lambda *said: progress.append(said), scale=2, steps=1, tags=False)
    assert (made.sequence.kind, made.sequence.count, made.sequence.plays) == ("animation", 3, 2)
    assert not progress, "nothing is done before a frame is asked for"
    results = list(made)
    assert [said for said in progress if said[0] == "frame"] == [("frame", number, 3) for number in range(3)]
    (seed,) = {result.seed for result in results}
    assert [result.duration for result in results] == [Fraction(7, 100), Fraction(3, 100), Fraction(1, 2)]
    for frame, result in zip(frames, results, strict=True):
        alone = upscaler.upscale(frame, scale=2, steps=1, tags=False, seed=seed)
        assert alone.image.tobytes() == result.image.tobytes()
    assert next(made, None) is None
    summary = upscaler.upscale_frames(content, scale=2, steps=1, tags=False, seed=seed).save(tmp_path / "out.png")
    opened = Image.open(tmp_path / "out.png")
    shown = [(page.convert("RGB").tobytes(), page.info["duration"]) for page in ImageSequence.Iterator(opened)]
    assert shown == [(result.image.tobytes(), 1000 * float(result.duration or 0)) for result in results]
    assert (summary.frames, summary.record()["frames"], summary.metrics()["frames"]) == (3, 3, 3)
    assert summary.seconds["denoise"] > 0
    assert "frames: 3" in summary.log()


def test_the_time_limit_holds_for_each_frame_and_a_stop_writes_nothing(upscaler: Upscaler, tmp_path: Path) -> None:
    frames = [photograph("chelsea.png", (150, 80 + number, 174, 104 + number)) for number in range(3)]
    content, now = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), [0.0]
    timed = sharing(upscaler, limits=Limits(seconds=10), clock=lambda: now[0])

    def wait(stage: str, done: int, total: int) -> None:
        now[0] += 8 if stage == "encode" else 0

    options = Options(scale=2, steps=1, tags=False, seed=1)
    timed.upscale_frames(content, options, wait).save(tmp_path / "out.webp")
    assert now[0] == 24

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("frame", 2):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        upscaler.upscale_frames(content, options, stop).save(tmp_path / "stopped.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["out.webp"]
    assert upscaler.upscale(frames[0], options).frames == 1, "the engine is free again"
