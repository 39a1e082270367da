"""Makes pictures: prompt, initial latents, denoise, vae_decode, paste back, second pass, upscale."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from seesr.autoencoder.vae import VAETiling, decode, encode, tiling_mode, vae_scale_factor
from seesr.debug import is_debugging, show_debug_log
from seesr.engine import Engine, Execution
from seesr.errors import CanceledError, OptionError
from seesr.generation import masks
from seesr.generation.checkpoints import Checkpoint, checkpoint_costs, resolve_checkpoint
from seesr.generation.noise import draw_noise
from seesr.generation.options import GenerationOptions
from seesr.generation.pipelines import ComposedUNet, ImageToImage, Inpaint, TextToImage
from seesr.generation.prompt_embeds import PromptEmbedder
from seesr.generation.prompt_syntax import SubPrompt, changes_with_steps, parse_prompt
from seesr.generation.result import GenerationResult
from seesr.generation.samplers import AUTOMATIC, Sampler, make_scheduler, parse_sampler, supports
from seesr.images.read import ImageSource, read_picture
from seesr.images.resize import resize, to_image, to_tensor
from seesr.images.sizes import Size
from seesr.machine.device import to_device_of
from seesr.notes import Notes
from seesr.options import Limits, Options
from seesr.planning.nan_guard import run_with_nan_guard
from seesr.planning.plan import MemoryPlan, TileSettings, Workload
from seesr.stages import Progress, Stages
from seesr.upscaler import Upscaler

MULTIPLE_OF = 8
"""Pixels of which the sides of a picture are multiples."""
ROOM = 1.5
"""How much larger than its native size a checkpoint's pictures may be before they are enlarged from smaller ones."""

Cancelled = Callable[[], bool]
"""Asked between the blocks of the networks; what is true ends the job."""


@dataclass(frozen=True)
class Recipe:
    """All that makes the pictures of a pass, but their seeds: resolved options."""

    options: GenerationOptions
    sampler: Sampler
    schedule: str
    steps: int
    guidance_scale: float
    size: Size
    strength: float = 1.0
    image: Image.Image | None = None
    """RGB, of `size`."""
    mask: Image.Image | None = None
    """L, of `size`."""
    latents: Tensor | None = None
    """In place of `image`."""

    @property
    def is_guided(self) -> bool:
        """Whether the UNet also predicts without the prompt, which the prediction then moves away from."""
        return self.guidance_scale > 1

    @property
    def task(self) -> str:
        if self.mask is not None:
            return "inpainting"
        return "text to image" if self.image is None and self.latents is None else "image to image"


@dataclass(frozen=True)
class Seeds:
    """The seeds of one picture."""

    seed: int
    variation: int | None = None


@dataclass
class Output:
    """What a pass gives for one picture."""

    image: Image.Image
    latents: Tensor
    notes: Notes = field(default_factory=Notes)


class Generator:
    """A text-to-image checkpoint on an engine. Safe to share between threads: one job runs at a time.

    Args:
        engine: holds `vae`, `unet` and `prompt_encoder`; those of an upscaler on a checkpoint's base serve both.
        checkpoint: what they were read from.
        upscaler: enlarges pictures; None loads one where it is needed.
        vae_tile: side of the VAE's tiles in latent pixels, 0 for none; None leaves it to the memory plan.
    """

    def __init__(
        self, engine: Engine, checkpoint: Checkpoint, upscaler: Upscaler | None = None, vae_tile: int | None = None
    ) -> None:
        self.engine, self.checkpoint, self._upscaler, self.vae_tile = engine, checkpoint, upscaler, vae_tile
        self.embedder = PromptEmbedder(engine.components, str(checkpoint.root))
        self.factor = vae_scale_factor(engine.components["vae"])

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        limits: Limits | None = None,
        memory_limit: int | None = None,
        sequential: bool = False,
        compiled: bool = False,
        vae_tile: int | None = None,
    ) -> Generator:
        """Loads a checkpoint; the other arguments are those of `Upscaler.load`.

        Raises:
            OptionError: the checkpoint cannot draw, or the device or dtype is not available.
            WeightsError: files are missing or do not fit.
            OutOfMemoryError: the networks do not fit.
        """
        if is_debugging():
            show_debug_log()
        found, on = resolve_checkpoint(checkpoint), (device, dtype, limits, memory_limit, sequential, compiled)
        return cls(
            Engine.load(found.name, found.networks, checkpoint_costs, found.defaults.dtype, *on), found, vae_tile=vae_tile
        )

    @classmethod
    def sharing(cls, upscaler: Upscaler) -> Generator:
        """A generator on the base that an upscaler has loaded already.

        Raises:
            OptionError: the base never learnt to draw.
        """
        base = resolve_checkpoint(upscaler.weights.root / "sd-turbo")
        return cls(upscaler.engine, replace(base, turbo=True), upscaler)

    @property
    def upscaler(self) -> Upscaler:
        """Loaded when it is needed for the first time."""
        if self._upscaler is None:
            engine = self.engine
            self._upscaler = Upscaler.load(device=str(engine.device), limits=engine.limits, memory_limit=engine.memory_limit)
        return self._upscaler

    def text_to_image(
        self,
        prompt: str = "",
        options: GenerationOptions | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        **values: Any,
    ) -> list[GenerationResult]:
        """Pictures of a prompt.

        Args:
            prompt: in A1111's syntax (`prompt_syntax`).
            options: all options at once; or give them by name.
            progress: called at each stage and each call of the UNet; what it raises ends the job.
            cancelled: asked between the blocks of the networks.

        Raises:
            OptionError: an option has a value that it cannot have.
            OutOfMemoryError: memory does not suffice with any plan.
            TimeLimitError: it takes longer than the operator allows.
            CanceledError: `cancelled` said so.
            ComputeError: the networks give NaN or infinity, in float32 too.
        """
        options = self._options(prompt, options, values)
        return self._make(options, partial(self._blank, options), progress, cancelled)

    def image_to_image(
        self,
        image: ImageSource,
        prompt: str = "",
        options: GenerationOptions | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        **values: Any,
    ) -> list[GenerationResult]:
        """Pictures that begin from another; `strength` 0 returns it as it is. See `text_to_image`.

        With `outpaint` the picture stays, and its surroundings are made.

        Raises:
            InputError: the picture cannot be used.
        """
        options = self._options(prompt, options, values)
        rgb = read_picture(image, self.engine.limits).rgb
        if options.outpaint is not None:
            wider = masks.outpaint(rgb, *options.outpaint)
            return self._inpaint(wider.image, wider.mask, options, progress, cancelled)
        return self._make(options, partial(self._from_image, options, rgb), progress, cancelled)

    def inpaint(
        self,
        image: ImageSource,
        mask: ImageSource,
        prompt: str = "",
        options: GenerationOptions | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        **values: Any,
    ) -> list[GenerationResult]:
        """Pictures in which what is white in the mask is painted anew; all else keeps its pixels. See `text_to_image`.

        Raises:
            InputError: the picture or the mask cannot be used, or they differ in size.
        """
        options = self._options(prompt, options, values)
        rgb = read_picture(image, self.engine.limits).rgb
        grey = mask if isinstance(mask, Image.Image) else read_picture(mask, self.engine.limits).rgb
        return self._inpaint(rgb, grey, options, progress, cancelled)

    def forecast(self, options: GenerationOptions) -> dict[str, Any]:
        """The memory plan of pictures from noise, its bytes beside the weights, and seconds by a timed call of the UNet."""
        notes, engine = Notes(), self.engine
        size = self._first_size(self._size(options), notes)
        recipe, (height, width) = self._recipe(options, size, notes), self._latent_size(size)
        work = Workload(height, width, TileSettings(tile=0, vae_tile=self.vae_tile))
        with engine.exclusive():
            plan, batch = engine.first_plan(work), engine.max_batch(work, options.batch_size)
            with engine.components.on(plan), engine.components.running("unet"):
                seconds = _seconds_of_a_call(engine.components["unet"], height, width, 2 if recipe.is_guided else 1)
        scheduler = make_scheduler(self.checkpoint.scheduler_config, recipe.sampler, recipe.schedule, 0)
        return {
            "pictures": options.count,
            "width": size[0],
            "height": size[1],
            "plan": plan.name,
            "memory": round(engine.costs.estimate(plan, height, width, batch)),
            "seconds": round(seconds * _calls(scheduler, recipe.steps, None) * options.count, 1),
            "notes": list(notes),
        }

    def unload(self) -> None:
        """Forgets the embeddings and the upscaler; the networks go with the last reference to the engine."""
        self.embedder.clear()
        self._upscaler = None

    # What the pictures begin from.

    def _blank(self, options: GenerationOptions, size: Size, notes: Notes) -> Recipe:
        return self._recipe(options, size, notes)

    def _from_image(self, options: GenerationOptions, rgb: Image.Image, size: Size, notes: Notes) -> Recipe:
        recipe = self._recipe(options, size, notes)
        return replace(recipe, image=resize(rgb, size), strength=options.strength)

    def _inpaint(
        self,
        rgb: Image.Image,
        mask: Image.Image,
        options: GenerationOptions,
        progress: Progress | None,
        cancelled: Cancelled | None,
    ) -> list[GenerationResult]:
        blurred = masks.read_mask(mask, rgb.size, options.mask_invert, options.mask_blur)
        if blurred.getbbox() is None:
            results = self._make(options, partial(self._from_image, options, rgb), progress, cancelled, rgb.size)
            for result in results:
                result.notes.append("the mask is empty: the whole picture was changed")
            return results
        target = _multiple(rgb.size)
        box = (0, 0, *rgb.size)
        if options.inpaint_area == "masked":
            target = self._size(options)
            box = masks.crop_box(blurred, options.inpaint_padding, target[0] / target[1])

        def begin(size: Size, notes: Notes) -> Recipe:
            begun = masks.fill_from_around(rgb, blurred) if options.inpaint_fill == "fill" else rgb
            parts = [picture.crop(box) for picture in (begun, blurred)]
            image, part = (
                picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS) for picture in parts
            )
            return replace(self._recipe(options, size, notes), image=image, mask=part, strength=options.strength)

        def finish(made: Image.Image) -> Image.Image:
            return masks.paste_back(rgb, made, blurred, box)

        return self._make(options, begin, progress, cancelled, target, finish)

    def _options(self, prompt: str, options: GenerationOptions | None, values: dict[str, Any]) -> GenerationOptions:
        if options is not None and values:
            raise OptionError(f"give options, or {', '.join(values)} by name, not both.")
        if options is None:
            options = GenerationOptions.make(prompt=prompt or None, **values)
        return options.model_copy(update={"prompt": prompt}) if prompt else options

    def _size(self, options: GenerationOptions) -> Size:
        """The size that is asked for; a side that is not given is the checkpoint's own."""
        native = self.checkpoint.native_side(self.factor)
        return options.width or native, options.height or native

    def _recipe(self, options: GenerationOptions, size: Size, notes: Notes) -> Recipe:
        defaults = self.checkpoint.defaults
        sampler, schedule = parse_sampler(options.sampler or self.checkpoint.default_sampler, options.schedule)
        if not supports(sampler, schedule):
            notes.add(f"the sampler {sampler.name} has no schedule {schedule}; its own was used")
            schedule = AUTOMATIC
        guidance = defaults.guidance_scale if options.guidance_scale is None else options.guidance_scale
        return Recipe(options, sampler, schedule, options.steps or defaults.steps, guidance, size)

    # The pipeline.

    def _make(
        self,
        options: GenerationOptions,
        begin: Callable[[Size, Notes], Recipe],
        progress: Progress | None,
        cancelled: Cancelled | None,
        size: Size | None = None,
        finish: Callable[[Image.Image], Image.Image] | None = None,
    ) -> list[GenerationResult]:
        notes = Notes()
        asked = size or self._size(options)
        size = self._first_size(asked, notes)
        recipe = begin(size, notes)
        results, seeds = list[GenerationResult](), self._seeds(options)
        for first in range(0, len(seeds), options.batch_size):
            batch = seeds[first : first + options.batch_size]
            for outputs, execution in self._pass(recipe, batch, progress, cancelled):
                for picture, output in outputs:
                    image, vae = (
                        output.image,
                        tiling_mode(self.engine.components["vae"], *self._latent_size(size), execution.plan.vae_tile),
                    )
                    output.notes.add(*notes, *execution.notes)
                    if options.second_pass:
                        image = self._second_pass(recipe, picture, output, progress, cancelled)
                    if image.size != asked and not options.second_pass:
                        image = self._enlarge(image, max(asked), picture.seed).resize(asked, Image.Resampling.LANCZOS)
                    image = finish(image) if finish else image
                    if options.upscale:
                        image = self._enlarge(image, round(max(image.size) * options.upscale), picture.seed)
                    results.append(self._result(recipe, picture, image, output, execution, vae))
        return results

    def _first_size(self, asked: Size, notes: Notes) -> Size:
        """`asked`, or where the checkpoint cannot make it a smaller size in that ratio."""
        largest = self.checkpoint.defaults.largest_side
        if largest is None or max(asked) <= ROOM * largest:
            return asked
        scale = largest / max(asked)
        smaller = _multiple((max(64, round(asked[0] * scale)), max(64, round(asked[1] * scale))))
        made = f"this was made at {smaller[0]}x{smaller[1]} and enlarged"
        notes.add(f"{self.checkpoint.name} makes pictures up to {largest} pixels a side: {made}")
        return smaller

    def _seeds(self, options: GenerationOptions) -> list[Seeds]:
        """Those of all pictures: with a variation the variation's count up, otherwise the pictures' own."""

        def drawn(seed: int | None) -> int:
            return secrets.randbits(32) if seed in (None, -1) else seed

        seed, count = drawn(options.seed), range(options.count)
        if options.variation_strength:
            variation = drawn(options.variation_seed)
            return [Seeds(seed, (variation + number) % 2**32) for number in count]
        return [Seeds((seed + number) % 2**32) for number in count]

    def _latent_size(self, size: Size) -> tuple[int, int]:
        return size[1] // self.factor, size[0] // self.factor

    def _pass(
        self, recipe: Recipe, batch: list[Seeds], progress: Progress | None, cancelled: Cancelled | None
    ) -> Iterator[tuple[list[tuple[Seeds, Output]], Execution]]:
        """Each picture of a batch, made with others as far as memory and sampler allow."""
        engine = self.engine
        height, width = self._latent_size(recipe.size)
        work = Workload(height, width, TileSettings(tile=0, vae_tile=self.vae_tile))
        with engine.exclusive():
            together = 1 if recipe.sampler.one_by_one else engine.max_batch(work, len(batch))
            for first in range(0, len(batch), together):
                jobs = batch[first : first + together]
                deadline = engine.deadline(len(jobs), spent=0.0)
                report = deadline.checked(progress)
                check = partial(_check, deadline.check, cancelled)
                run = partial(self._run, recipe, report, check)
                for (output, execution), job in zip(engine.run(jobs, work, run, engine.stages()), jobs, strict=True):
                    yield [(job, output)], execution

    def _run(
        self,
        recipe: Recipe,
        report: Progress,
        check: Callable[[], None],
        jobs: list[Seeds],
        plan: MemoryPlan,
        stages: Stages,
    ) -> list[Output]:
        """One pass of the pipeline, for several pictures together."""
        components, vae = self.engine.components, self.engine.components["vae"]
        notes, tiling = [Notes() for _ in jobs], VAETiling(plan.vae_tile, plan.map_storage)
        if recipe.image is not None and recipe.strength == 0:
            return [Output(recipe.image, torch.empty(0), note) for note in notes]
        report("prompt", 0, 1)
        with stages.stage("prompt"):
            prompts = _Prompts(self.embedder, recipe)
        begun = recipe.latents
        if recipe.image is not None:
            report("encode", 0, 1)
            with stages.stage("encode") as log, components.running("vae"), _checked(vae, check):
                pixels = to_tensor(recipe.image)
                begun = log(run_with_nan_guard("encode", [vae], lambda: encode(vae, pixels, tiling), notes).float())
        with stages.stage("denoise") as log, components.running("unet"):
            latents = log(self._denoise(recipe, begun, prompts, jobs, report, check, notes))
        report("vae_decode", 0, 1)
        with stages.stage("vae_decode") as log, components.running("vae"), _checked(vae, check):
            compute = partial(decode, vae, to_device_of(latents, vae), tiling)
            pixels = log(run_with_nan_guard("vae_decode", [vae], compute, notes))
        with stages.stage("finish"):
            images = [to_image(one) for one in pixels.cpu().split(1)]
        return [Output(*values) for values in zip(images, latents.cpu().split(1), notes, strict=True)]

    def _denoise(
        self,
        recipe: Recipe,
        begun: Tensor | None,
        prompts: _Prompts,
        jobs: list[Seeds],
        report: Progress,
        check: Callable[[], None],
        notes: list[Notes],
    ) -> Tensor:
        unet, count = self.engine.components["unet"], len(jobs)
        height, width = self._latent_size(recipe.size)
        shape = 1, self.engine.components["vae"].config.latent_channels, height, width
        scheduler = make_scheduler(self.checkpoint.scheduler_config, recipe.sampler, recipe.schedule, jobs[0].seed)
        strength = max(recipe.strength, 1 / recipe.steps)  # at least one step
        counted = _CountedCalls(report, _calls(scheduler, recipe.steps, strength if begun is not None else None))

        def compute() -> Tensor:
            generators = [torch.Generator().manual_seed(job.seed) for job in jobs]
            variation = recipe.options.variation_strength
            noise = torch.cat(
                [draw_noise(one, shape, job.variation, variation) for one, job in zip(generators, jobs, strict=True)]
            )
            network = prompts.composed(unet)
            arguments = {
                "prompt_embeds": prompts.positive(0, unet, count),
                "negative_prompt_embeds": prompts.negative(unet, count),
                "num_inference_steps": recipe.steps,
                "guidance_scale": recipe.guidance_scale,
                "generator": generators,
                "output_type": "latent",
                "callback_on_step_end": partial(prompts.update, unet, count),
                "callback_on_step_end_tensor_inputs": ["latents"],
            }
            parts = {"vae": self.engine.components["vae"], "text_encoder": None, "tokenizer": None, "unet": network}
            parts |= {"scheduler": scheduler, "safety_checker": None, "feature_extractor": None}
            if begun is None:
                pipeline = TextToImage(**parts, requires_safety_checker=False)
                arguments |= {"latents": noise.to(unet.dtype), "height": recipe.size[1], "width": recipe.size[0]}
            else:
                pipeline = (Inpaint if recipe.mask is not None else ImageToImage)(**parts, requires_safety_checker=False)
                pipeline.noise = noise
                arguments |= {"image": begun.expand(count, -1, -1, -1), "strength": strength}
                if isinstance(pipeline, Inpaint):
                    pipeline.filled = _filled(begun, noise, recipe)
                    arguments |= {
                        "mask_image": recipe.mask,
                        "masked_image_latents": begun,
                        "height": recipe.size[1],
                        "width": recipe.size[0],
                    }
            pipeline.set_progress_bar_config(disable=True)
            with _checked(unet, check), counted.watching(network):
                return pipeline(**arguments).images.float()

        return run_with_nan_guard("denoise", [unet], compute, notes)

    # After the pass.

    def _second_pass(
        self, recipe: Recipe, picture: Seeds, output: Output, progress: Progress | None, cancelled: Cancelled | None
    ) -> Image.Image:
        options, scale = recipe.options, recipe.options.second_pass or 1
        size = _multiple((round(recipe.size[0] * scale), round(recipe.size[1] * scale)))
        image, latents = output.image, None
        if options.second_pass_upscaler == "latent":
            height, width = self._latent_size(size)
            latents = torch.nn.functional.interpolate(output.latents, size=(height, width), mode="bilinear", antialias=False)
            image = None
        elif options.second_pass_upscaler == "Lanczos":
            image = image.resize(size, Image.Resampling.LANCZOS)
        else:
            image = self._enlarge(image, max(size), picture.seed).resize(size, Image.Resampling.LANCZOS)
        steps, strength = options.second_pass_steps or recipe.steps, options.second_pass_strength
        second = replace(recipe, size=size, image=image, latents=latents, mask=None, steps=steps, strength=strength)
        ((outputs, _),) = self._pass(second, [picture], progress, cancelled)
        output.notes.add(*outputs[0][1].notes)
        return outputs[0][1].image

    def _enlarge(self, image: Image.Image, longer_side: int, seed: int) -> Image.Image:
        return self.upscaler.upscale(image, Options(max_side=longer_side, seed=seed)).image

    def _result(
        self, recipe: Recipe, picture: Seeds, image: Image.Image, output: Output, execution: Execution, vae: str
    ) -> GenerationResult:
        options = recipe.options
        return GenerationResult(
            image=image,
            seed=picture.seed,
            prompt=options.prompt,
            options=options,
            weights=self.checkpoint.name,
            dtype=execution.dtype,
            seconds=execution.seconds,
            notes=list(output.notes),
            rung=execution.plan.name,
            attempts=execution.attempts,
            vae=vae,
            peak_memory=execution.peak_memory,
            negative_prompt=options.negative_prompt,
            variation_seed=picture.variation,
            sampler=recipe.sampler.name,
            schedule=recipe.schedule,
            steps=recipe.steps,
            guidance_scale=recipe.guidance_scale,
            checkpoint_digest="",
            task=recipe.task,
            first_size=recipe.size,
        )


class _Prompts:
    """The embeddings of a pass: of the negative prompt, and of the prompt at each step."""

    def __init__(self, embedder: PromptEmbedder, recipe: Recipe) -> None:
        self.recipe, skip = recipe, recipe.options.clip_skip
        subprompts = parse_prompt(recipe.options.prompt)
        self.weights = [subprompt.weight for subprompt in subprompts]
        self.changes = changes_with_steps(subprompts)
        steps = range(recipe.steps if self.changes else 1)
        negative = embedder.embed(parse_prompt(recipe.options.negative_prompt)[0].fragments(0, 1), skip)
        by_step = [[_embed(embedder, one, step, recipe.steps, skip) for one in subprompts] for step in steps]
        padded = iter(embedder.padded([negative, *(embeds for row in by_step for embeds in row)], skip))
        self._negative = next(padded)
        self._by_step = [[next(padded) for _ in row] for row in by_step]

    @property
    def is_composed(self) -> bool:
        return (len(self.weights) > 1 or self.weights[0] != 1) and self.recipe.is_guided

    def composed(self, unet: Any) -> Any:
        """The UNet, which composes the prompts that AND joins."""
        return ComposedUNet(unet, self._by_step[0], self.weights) if self.is_composed else unet

    def positive(self, step: int, unet: Any, count: int) -> Tensor:
        row = self._by_step[min(step, len(self._by_step) - 1)]
        embeds = row[0]
        if len(row) > 1 and not self.is_composed:  # without guidance the prompts are mixed
            total = sum(self.weights) or 1.0
            embeds = torch.stack([weight / total * one for weight, one in zip(self.weights, row, strict=True)]).sum(dim=0)
        return embeds.to(unet.device, unet.dtype).expand(count, -1, -1)

    def negative(self, unet: Any, count: int) -> Tensor:
        return self._negative.to(unet.device, unet.dtype).expand(count, -1, -1)

    def update(self, unet: Any, count: int, pipeline: Any, index: int, _: Any, state: dict[str, Any]) -> dict[str, Any]:
        """The prompt of the next call: diffusers calls this after each of `pipeline.num_timesteps`."""
        if not self.changes:
            return state
        step = (index + 1) * self.recipe.steps // pipeline.num_timesteps
        if self.is_composed:
            pipeline.unet.embeds = self._by_step[min(step, len(self._by_step) - 1)]
        embeds = self.positive(step, unet, count)
        guided = torch.cat([self.negative(unet, count), embeds]) if pipeline.do_classifier_free_guidance else embeds
        return state | {"prompt_embeds": guided}


def _embed(embedder: PromptEmbedder, subprompt: SubPrompt, step: int, steps: int, clip_skip: int) -> Tensor:
    return embedder.embed(subprompt.fragments(step, steps), clip_skip)


class _CountedCalls:
    """Reports the calls of the UNet as progress."""

    def __init__(self, report: Progress, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    @contextmanager
    def watching(self, network: Any) -> Iterator[None]:
        self.done = 0

        def before(*_: Any) -> None:
            self.report("denoise", self.done, self.total)
            self.done += 1

        handle = network.register_forward_pre_hook(before)
        try:
            yield
        finally:
            handle.remove()
        self.report("denoise", self.total, self.total)


@contextmanager
def _checked(network: Any, check: Callable[[], None]) -> Iterator[None]:
    """Calls `check` before each convolution, so that a job ends within a call of a network."""
    handles = [
        module.register_forward_pre_hook(lambda *_: check())
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(deadline: Callable[[], None], cancelled: Cancelled | None) -> None:
    deadline()
    if cancelled is not None and cancelled():
        raise CanceledError("the job was cancelled.")


def _seconds_of_a_call(unet: Any, height: int, width: int, batch: int) -> float:
    """The faster of two calls: the first one warms up."""
    latents = torch.zeros(batch, unet.config.in_channels, height, width, device=unet.device, dtype=unet.dtype)
    embeds = torch.zeros(batch, 77, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        unet(latents, 999, encoder_hidden_states=embeds)[0].cpu()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _calls(scheduler: Any, steps: int, strength: float | None) -> int:
    """How often a pipeline will call the UNet; `strength` is None from noise alone."""
    scheduler.set_timesteps(steps)
    if strength is None:
        return len(scheduler.timesteps)
    first = max(steps - min(int(steps * strength), steps), 0)
    return len(scheduler.timesteps[first * scheduler.order :])


def _filled(begun: Tensor, noise: Tensor, recipe: Recipe) -> Tensor:
    """The latents that inpainting begins from."""
    fill = recipe.options.inpaint_fill
    if recipe.mask is None or fill in ("original", "fill"):
        return begun
    masked = to_tensor(recipe.mask.resize((begun.shape[3], begun.shape[2])).convert("RGB"))[:, :1] > 0.5
    return torch.where(
        masked.to(begun.device), noise.to(begun) if fill == "latent noise" else torch.zeros(()).to(begun), begun
    )


def _multiple(size: Size) -> Size:
    """The size whose sides are multiples of 8, not smaller."""
    width, height = (-(-side // MULTIPLE_OF) * MULTIPLE_OF for side in size)
    return width, height
