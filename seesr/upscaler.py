"""The whole way of a picture, from a file to a larger and sharper image."""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from PIL import Image
from torch import Tensor

from seesr.autoencoder.vae import Tiling, decode, encode, way
from seesr.cleaner import clean
from seesr.conditioning import Conditioner, Conditions, Seen
from seesr.debug import is_debugging, show_log
from seesr.diffusion.sampler import ddim_step, sample
from seesr.diffusion.steering import Steering, nearest_to_mean
from seesr.diffusion.tiles import Tiles, predict_tiled
from seesr.errors import OptionError, OutOfMemoryError, TimeLimitError
from seesr.images.colour import adain_fix, wavelet_fix
from seesr.images.decode import ImageSource, Picture, open_picture
from seesr.images.finish import finish
from seesr.images.resize import Sizes, crop, pad, plan_sizes, resize, to_image, to_tensor
from seesr.models import Models, like
from seesr.options import Limits, Options
from seesr.result import Result
from seesr.runtime.device import choose_device, choose_dtype, dtype_name, dtype_on
from seesr.runtime.guard import guarded
from seesr.runtime.ladder import climb_down
from seesr.runtime.memory import PeakMemory, free_memory, keeping_freed_memory, memory_bytes, told_without_memory
from seesr.runtime.plan import Budget, Rung, how_many, limit_of, may_keep, rungs
from seesr.runtime.stages import Stages
from seesr.tagging.prompt import Tag
from seesr.weights.resolve import Weights, resolve_weights

logger = logging.getLogger("seesr")

COLOR_FIXES = {"wavelet": wavelet_fix, "adain": adain_fix, "none": lambda target, source: target}
MOST_TOGETHER = 8
"""Pictures in one pass on a GPU. Assumed: not measured yet."""

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and of how much."""


@dataclass(frozen=True, eq=False)
class Job:
    """Pictures of one size that go through the models together."""

    pictures: list[Picture]
    sizes: Sizes
    options: Options
    seeds: list[int]
    tell: Progress
    stages: Stages


class Upscaler:
    """Models, loaded once, and the way of a picture through them. Safe to share between threads: one runs at a time.

    PyTorch keeps memory for each thread that ever computed: a server should let one lasting thread call it.
    """

    def __init__(
        self, models: Models, weights: Weights, dtype: torch.dtype, limits: Limits, memory_limit: int | None = None
    ) -> None:
        self.models, self.weights, self.device, self.dtype = models, weights, models.device, dtype
        self.limits, self.memory_limit = limits, memory_limit
        self._one_at_a_time = threading.Lock()
        self.conditioner = Conditioner(models)

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        limits: Limits | None = None,
        memory_limit: int | None = None,
        sequential: bool = False,
        compiled: bool = False,
    ) -> Upscaler:
        """Loads the models.

        Args:
            weights: a folder in the published layout, `full` or `tiny`; None looks at SEESR_WEIGHTS, then takes the full
                model if the cache has it, else the embedded small one.
            device: auto, cpu, cuda, cuda:N or mps.
            dtype: auto, float32, bfloat16 or float16.
            limits: what may be asked for; None reads the SEESR_ environment variables.
            memory_limit: bytes of the device's memory (the machine's, on a CPU) to use at most, weights included.
            sequential: keep only the running model on the device; on a CPU, in memory: the others are read anew each time.
                There that is done anyway where memory does not suffice for all, with a warning.
            compiled: compile the networks' blocks at their first run, which takes minutes and needs a compiler.

        Raises:
            WeightsError: files are missing or do not fit.
            OptionError: the device or dtype is not to be had, or there is no compiler.
            OutOfMemoryError: the models do not fit.

        With SEESR_DEBUG=1 every stage is shown on standard error from then on.
        """
        if is_debugging():
            show_log()
        found, on = resolve_weights(weights), choose_device(device)
        ways = [False, True] if on.type == "cpu" and not sequential else [sequential]
        for one_by_one in ways:
            memory = 0 if one_by_one else min(memory_bytes(on)[1], memory_limit or math.inf)
            precision = choose_dtype(dtype, on, found.wishes.dtype, memory)
            try:
                models = _load_models(found, on, precision, one_by_one, compiled)
                break
            except OutOfMemoryError:
                if one_by_one == ways[-1]:
                    raise
            free_memory(on)
            logger.warning("memory does not suffice for all models of %s at once: each is read when it runs", found.name)
        return cls(models, found, precision, limits or Limits.from_environment(), memory_limit)

    def upscale(
        self,
        image: ImageSource,
        options: Options | None = None,
        progress: Progress | None = None,
        **values: object,
    ) -> Result:
        """Upscales one picture.

        Args:
            image: a path, the bytes of a file, a PIL image, or an array of uint8: grey `(H, W)`, RGB `(H, W, 3)` or RGBA
                `(H, W, 4)`.
            options: all options at once; or give them by name: `upscale(image, scale=2, preset="quality")`.
            progress: told of each stage and step; what it raises ends the picture.

        Raises:
            InputError: the picture cannot be used.
            OptionError: an option has a value that it cannot have, or there are both `options` and options by name.
            OutOfMemoryError: memory does not suffice on any way.
            TimeLimitError: it takes longer than the operator allows.
            ComputeError: the models gave numbers that are none, in float32 too.
        """
        return self.upscale_many([image], options, progress, **values)[0]

    def upscale_many(
        self,
        images: list[ImageSource],
        options: Options | None = None,
        progress: Progress | None = None,
        together: int | None = None,
        **values: object,
    ) -> list[Result]:
        """Upscales several pictures, up to `together` neighbours of one size in one pass where memory suffices.

        Without `together` that is 8 on a GPU, and 1 on a CPU, where a pass of several takes longer than several passes.
        Otherwise as `upscale`. With a seed each picture gets that one: what becomes of it does not depend on the others.

        All are decoded and their sizes looked at first, and an error with one is an error of all: for many, or such as may
        be damaged, call `upscale` for each.
        """
        if options is not None and values:
            raise OptionError(f"give options, or {', '.join(values)} by name, not both.")
        options = options or Options.make(**values)
        with self._one_at_a_time, torch.inference_mode():
            stages, began = Stages(), time.monotonic()
            with stages.stage("decode"):
                pictures = [open_picture(image, self.limits) for image in images]
            decoding = (time.monotonic() - began) / max(1, len(images))
            results = []
            groups = [list(same) for _, same in groupby(pictures, key=lambda picture: picture.rgb.size)]
            for group, sizes in [(group, self._plan(group[0], options)) for group in groups]:
                count = self._in_one_pass(sizes, options, min(len(group), together or self.together))
                for first in range(0, len(group), count):
                    part = group[first : first + count]
                    began = time.monotonic() - decoding * len(part)
                    tell = _within(self.limits.seconds, len(part), began, progress)
                    seeds = [secrets.randbits(32) if options.seed is None else options.seed for _ in part]
                    results += self._upscale(Job(part, sizes, options, seeds, tell, stages))
                    stages = Stages()
            return results

    def tags(self, image: ImageSource) -> list[Tag]:
        """What RAM sees in a picture, in the order of its tag list.

        Raises:
            InputError: the picture cannot be used.
            OutOfMemoryError: memory does not suffice.
        """
        with self._one_at_a_time, torch.inference_mode():
            rgb = open_picture(image, self.limits).rgb
            with told_without_memory(
                f"memory ran out on {self.device} while RAM looked at {rgb.width}x{rgb.height} pixels. "
                "Give a smaller picture or another device, or close other programs."
            ):
                return self.conditioner.look(rgb).tags

    @property
    def together(self) -> int:
        """Pictures of one size that are best taken in one pass."""
        return 1 if self.device.type == "cpu" else MOST_TOGETHER

    def clear_caches(self) -> None:
        """Forgets prompts and pictures seen before."""
        with self._one_at_a_time:
            self.conditioner.clear()

    def _upscale(self, job: Job) -> list[Result]:
        """Down the ladder until memory suffices; several pictures together only on its first rung, else one by one."""
        peak, (height, width) = PeakMemory(self.device), self._latent_size(job.sizes)
        ladder, budget = self._ladder(job.sizes, job.options)
        expected = self.models.costs.estimate(ladder[0], height, width, len(job.pictures))
        keeps = may_keep(ladder[0], expected, budget)
        try:
            tried = ladder if len(job.pictures) == 1 else ladder[:1]
            with keeping_freed_memory(expected) if keeps else nullcontext():
                (images, seen, prompts, notes), rung, attempts = climb_down(tried, lambda rung: self._travel(job, rung))
        except OutOfMemoryError as error:
            if len(job.pictures) == 1:
                raise
            failed = [replace(one, rung=f"{one.rung}, {len(job.pictures)} pictures") for one in error.attempts]
            parts = zip(job.pictures, job.seeds, strict=True)
            alone = [replace(job, pictures=[picture], seeds=[seed], stages=Stages()) for picture, seed in parts]
            results = [result for one in alone for result in self._upscale(one)]
            return [replace(result, attempts=[*failed, *result.attempts]) for result in results]
        said = list[str]()
        if not attempts and self.models.costs.estimate(rung, height, width) > limit_of(rung, budget):
            said.append("no way was estimated to fit into the memory allowed; the smallest was taken")
        vae = way(self.models.vae, height, width, Tiling(rung.vae_tile))
        if vae == "estimated tiles":
            said.append("too large for an exact tiled VAE: its statistics were estimated from sample tiles")
        return [
            Result(
                image=image,
                seed=seed,
                tags=one.tags,
                prompt=prompt,
                sizes=job.sizes,
                seconds=job.stages.seconds,
                weights=self.weights.name,
                dtype=dtype_name(dtype_on(rung.device, self.dtype)),
                options=job.options,
                notes=[*picture.notes, *own, *said],
                rung=rung.name,
                attempts=attempts,
                vae=vae,
                peak_memory=peak.bytes(),
            )
            for image, seed, one, prompt, picture, own in zip(
                images, job.seeds, seen, prompts, job.pictures, notes, strict=True
            )
        ]

    def _travel(self, job: Job, rung: Rung) -> tuple[list[Image.Image], list[Seen], list[str], list[list[str]]]:
        """The way itself: images, what was seen in them, their prompts, and notes, of each picture."""
        stages, options, tell, notes = job.stages, job.options, job.tell, list[str]()
        tiles, tiling = rung.tiles(*self._latent_size(job.sizes)), Tiling(rung.vae_tile, rung.map_memory)
        given = images = [picture.rgb for picture in job.pictures]
        with self.models.on(rung):
            if self.models.cleaner is not None:
                with stages.stage("clean"):
                    images = self._clean(given, job.sizes, tell, notes)
            with stages.stage("resize") as note:
                enlarged = [pad(to_tensor(resize(image, job.sizes.working)), job.sizes) for image in images]
                image = note.result(torch.cat(enlarged))
                del enlarged
            tell("tags", 0, 1)
            with stages.stage("tags"):
                seen = [self.conditioner.look(image) for image in given]
            with stages.stage("prompt"):
                prompts = [self.conditioner.prompt(one, options) for one in seen]
                conditions = self.conditioner.conditions(given, seen, job.sizes, tiles, options, tell)
            tell("encode", 0, 1)
            with stages.stage("encode") as note:
                latents = note.result(self._start(image, job.seeds, options.particles, tiling, notes))
            with stages.stage("denoise") as note:
                latents = note.result(self._denoise(latents, image, conditions, tiles, options, tell, notes))
            tell("decode", 0, 1)
            with stages.stage("pixels") as note:
                pixels = note.result(self._decode(latents, tiling, notes))
            with stages.stage("colour") as note:
                pixels = note.result(COLOR_FIXES[options.color_fix](pixels, image.to(pixels.device)))
            with stages.stage("finish"):
                finished = [
                    finish(to_image(crop(one, job.sizes)), picture, job.sizes, options.sharpen)
                    for one, picture in zip(pixels.split(1), job.pictures, strict=True)
                ]
        tell("done", 1, 1)
        return finished, seen, prompts, [[*of_one, *notes] for of_one in conditions.notes]

    def _clean(self, images: list[Image.Image], sizes: Sizes, tell: Progress, notes: list[str]) -> list[Image.Image]:
        """What the embedded model does with pictures before it enlarges them; what shall become smaller is reduced first."""
        cleaner, cleaned = self.models.cleaner, []

        def cleaned_pixels(pixels: Tensor) -> Tensor:
            return guarded("clean", [cleaner], lambda: clean(cleaner, pixels), notes)

        with self.models.running(cleaner):
            for number, image in enumerate(images):
                tell("clean", number, len(images))
                smaller = resize(image, min(image.size, sizes.working))
                cleaned.append(to_image(cleaned_pixels(to_tensor(smaller))))
        return cleaned

    def _start(self, image: Tensor, seeds: list[int], particles: int, tiling: Tiling, notes: list[str]) -> Tensor:
        """The pictures' own latents under full noise ("start from LR"), float32, each under that of its particles."""
        vae, schedule = self.models.vae, self.models.schedule
        with self.models.running(vae):
            latents = guarded("encode", [vae], lambda: encode(vae, image, tiling), notes).float()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.randn(latents.shape[1:], generator=one) for one in generators for _ in range(particles)]
        latents = latents.repeat_interleave(particles, dim=0)
        return schedule.add_noise(latents, torch.stack(noise).to(latents), len(schedule.alphas_cumprod) - 1)

    def _denoise(
        self,
        latents: Tensor,
        image: Tensor,
        conditions: Conditions,
        tiles: Tiles,
        options: Options,
        tell: Progress,
        notes: list[str],
    ) -> Tensor:
        particles, denoiser = options.particles, self.models.denoiser

        def predict_tiles(noisy: Tensor, timestep: int, pixels: Tensor, numbers: list[int]) -> Tensor:
            # Tile by tile, in it picture by picture, in it particle by particle.
            count = len(noisy) // (len(numbers) * len(image))
            told = (tensor.repeat_interleave(count, dim=0) for tensor in conditions.of(numbers))
            noisy, pixels, embeds, tokens = (like(tensor, denoiser) for tensor in (noisy, pixels, *told))
            return denoiser(noisy, timestep, pixels, embeds, tokens, options.conditioning_scale).float()

        def predict(noisy: Tensor, timestep: int) -> Tensor:
            passes, parts = math.ceil(particles / tiles.copies_at_once), []
            for part in noisy.unflatten(0, (-1, particles)).chunk(passes, dim=1):
                pixels = image[:, None].expand(-1, part.shape[1], -1, -1, -1).flatten(0, 1)
                found = predict_tiled(predict_tiles, part.flatten(0, 1), timestep, pixels, tiles)
                parts.append(found.unflatten(0, part.shape[:2]))
            return torch.cat(parts, dim=1).flatten(0, 1)

        def progress(step: int, steps: int, _: Tensor) -> None:
            tell("denoise", step, steps)

        def run() -> Tensor:
            step = Steering(particles, options.kds_bandwidth, options.kds_patch).step if particles > 1 else ddim_step
            return sample(predict, self.models.schedule, latents, options.steps, step, progress)

        with self.models.running(denoiser):
            return nearest_to_mean(guarded("denoise", [denoiser], run, notes), particles)

    def _decode(self, latents: Tensor, tiling: Tiling, notes: list[str]) -> Tensor:
        """Pixels `(B, 3, H, W)`, float32."""
        vae = self.models.vae
        with self.models.running(vae):
            return guarded("pixels", [vae], lambda: decode(vae, like(latents, vae), tiling), notes)

    def _plan(self, picture: Picture, options: Options) -> Sizes:
        return plan_sizes(picture.rgb.size, options.scale, options.max_side, self.models.needs, self.limits)

    def _ladder(self, sizes: Sizes, options: Options) -> tuple[list[Rung], Budget]:
        """The ways through the models for pictures of this size, and what they may take at this moment."""
        height, width = self._latent_size(sizes)
        budget = Budget.now(self.device, self.memory_limit)
        models = self.models
        return rungs(options, height, width, self.device, models.costs, budget, models.sequential, models.compiled), budget

    def _in_one_pass(self, sizes: Sizes, options: Options, most: int) -> int:
        """Pictures, at most `most`, that go together."""
        if most == 1:
            return 1
        ladder, budget = self._ladder(sizes, options)
        return how_many(ladder[0], *self._latent_size(sizes), self.models.costs, budget, most)

    def _latent_size(self, sizes: Sizes) -> tuple[int, int]:
        width, height = (side // self.models.factor for side in sizes.padded)
        return height, width


def _load_models(weights: Weights, on: torch.device, dtype: torch.dtype, sequential: bool, compiled: bool) -> Models:
    advice = "Use bfloat16" if sequential else "Use sequential, bfloat16"
    with told_without_memory(
        f"memory ran out while the models of {weights.name} were loaded in {dtype_name(dtype)}. "
        f"{advice} or smaller weights, or close other programs."
    ):
        return Models.load(weights, on, dtype, sequential, compiled)


def _within(seconds: int, pictures: int, began: float, progress: Progress | None) -> Progress:
    """`progress`, which raises TimeLimitError once the time of so many pictures, since `began`, is over."""
    end = began + seconds * pictures

    def tell(stage: str, done: int, total: int) -> None:
        if time.monotonic() > end:
            raise TimeLimitError(
                f"it took longer than {seconds} seconds a picture, which is all that is allowed here (SEESR_SECONDS); "
                "ask for a smaller scale or fewer steps."
            )
        if progress is not None:
            progress(stage, done, total)

    return tell
