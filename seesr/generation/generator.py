"""Makes pictures: prompts, a pass, paste back, second pass, enlargement."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from seesr.debug import is_debugging, show_debug_log
from seesr.engine import Engine
from seesr.errors import OptionError
from seesr.files import data_folder
from seesr.generation.canvas import Canvas, make_canvas
from seesr.generation.checkpoints import BASE_FOLDER, Checkpoint, resolve_checkpoint
from seesr.generation.controlnet import Control, make_control
from seesr.generation.controls import MAX_CONTROLS, ControlUnit
from seesr.generation.library import CONTROLNETS, DEPTH, MODELS, FolderLibrary, model_folders
from seesr.generation.lora_tags import as_tags, split_tags
from seesr.generation.options import MAX_SIDE, MIN_SIDE, GenerationOptions
from seesr.generation.passes import Cancelled, Output, Passes, Recipe, Seeds, Watch, count_calls
from seesr.generation.preprocessors import control_map
from seesr.generation.previews import Preview
from seesr.generation.prompt_embeds import TOKENS
from seesr.generation.result import GenerationResult
from seesr.generation.safety import SafetyChecker, blurred
from seesr.generation.samplers import AUTOMATIC, parse_sampler, supports
from seesr.generation.styles import apply_styles, expand_variants, read_styles
from seesr.images.encoded import ImageSource
from seesr.images.read import read_picture
from seesr.images.resize import resize
from seesr.images.sizes import Size
from seesr.machine.device import dtype_name
from seesr.networks import network_costs
from seesr.notes import Notes
from seesr.options import Limits, Options
from seesr.stages import Progress
from seesr.upscaler import Upscaler

MULTIPLE_OF = 8
"""Pixels of which the sides of a picture are multiples while the networks work on it."""
ROOM = 1.5
"""How much larger than its native size a checkpoint's pictures may be before they are enlarged from smaller ones."""


class Generator:
    """A text-to-image checkpoint on an engine. Safe to share between threads: one pass runs at a time.

    Args:
        engine: holds `vae`, `unet` and `prompt_encoder`; those of an upscaler on a checkpoint's base serve both.
        checkpoint: what they were read from.
        upscaler: enlarges pictures; None loads one where it is needed.
        vae_tile: side of the VAE's tiles in latent pixels, 0 for none; None leaves it to the memory plan.
        data: folder with `models/`, `styles.csv` and `wildcards/`; None is the user's (`data_folder`).
        safety_checker: its folder; None is that of SEESR_SAFETY_CHECKER, and without it nothing is checked.
        load_upscaler: gives the upscaler whenever it is needed, in place of `upscaler`; whoever gives it keeps it.
    """

    def __init__(
        self,
        engine: Engine,
        checkpoint: Checkpoint,
        upscaler: Upscaler | None = None,
        vae_tile: int | None = None,
        data: Path | None = None,
        safety_checker: str | os.PathLike[str] | None = None,
        load_upscaler: Callable[[], Upscaler] | None = None,
    ) -> None:
        self._load_upscaler = load_upscaler
        self.safety_checker = SafetyChecker.from_environment(safety_checker)
        self.engine, self.checkpoint, self._upscaler = engine, checkpoint, upscaler
        self.data = data or data_folder()
        self.passes = Passes(engine, checkpoint, self.data / MODELS, vae_tile)
        self._loading = threading.Lock()

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
        vae: str | os.PathLike[str] | None = None,
        prediction: str | None = None,
        safety_checker: str | os.PathLike[str] | None = None,
    ) -> Generator:
        """Loads a checkpoint; the arguments that are not described here are those of `Upscaler.load`.

        Args:
            checkpoint: see `resolve_checkpoint`; None looks at SEESR_CHECKPOINT, then takes the full model's base if the
                cache has it, else the embedded checkpoint.
            vae_tile: side of the VAE's tiles in latent pixels, 0 for none; None leaves it to the memory plan.
            vae: a VAE in place of the checkpoint's own (`resolve_vae`).
            prediction: `epsilon` or `v_prediction`, in place of what the checkpoint says that its UNet predicts.
            safety_checker: its folder; None is that of SEESR_SAFETY_CHECKER, and without it nothing is checked.

        Raises:
            OptionError: the checkpoint cannot draw, or the device or dtype is not available.
            WeightsError: files are missing or do not fit.
            OutOfMemoryError: the networks do not fit.
        """
        if is_debugging():
            show_debug_log()
        found = resolve_checkpoint(checkpoint, vae, prediction)
        on = device, dtype, limits, memory_limit, sequential, compiled
        engine = Engine.load(found.name, found.networks, network_costs, found.defaults.dtype, *on)
        return cls(engine, found, vae_tile=vae_tile, safety_checker=safety_checker)

    @classmethod
    def sharing(
        cls, upscaler: Upscaler, vae_tile: int | None = None, safety_checker: str | os.PathLike[str] | None = None
    ) -> Generator:
        """A generator on the base that an upscaler has loaded already; the other arguments are those of `load`.

        Raises:
            OptionError: the base never learnt to draw.
        """
        base = resolve_checkpoint(upscaler.weights.root / BASE_FOLDER)
        return cls(upscaler.engine, base, upscaler, vae_tile, safety_checker=safety_checker)

    @property
    def upscaler(self) -> Upscaler:
        """Loaded when it is needed for the first time; where it has the same base, that is let go of before."""
        if self._load_upscaler is not None:
            return self._load_upscaler()
        with self._loading:
            if self._upscaler is None:
                engine, checkpoint = self.engine, self.checkpoint
                like = {"device": str(engine.device), "limits": engine.limits, "memory_limit": engine.memory_limit}
                like |= {"sequential": engine.components.sequential, "compiled": engine.components.compiled}
                if not checkpoint.is_base or checkpoint.vae is not None:
                    self._upscaler = Upscaler.load(**like)
                    return self._upscaler
                with engine.exclusive():
                    engine.components.unload()
                self._upscaler = Upscaler.load(checkpoint.root.parent, dtype=dtype_name(engine.dtype), **like)
                self.engine = self._upscaler.engine
                self.passes = Passes(self.engine, checkpoint, self.passes.models, self.passes.vae_tile)
            return self._upscaler

    def text_to_image(
        self,
        prompt: str = "",
        options: GenerationOptions | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        preview: Preview | None = None,
        controls: Sequence[ControlUnit[ImageSource]] = (),
        **values: Any,
    ) -> list[GenerationResult]:
        """Pictures of a prompt; see `stream`.

        Args:
            prompt: in A1111's syntax (`prompt_syntax`); "" takes that of `options`.
            options: all options at once; or give them by name.
        """
        return list(self.stream(_options(prompt, options, values), None, None, progress, cancelled, preview, controls))

    def image_to_image(
        self,
        image: ImageSource,
        prompt: str = "",
        options: GenerationOptions | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        preview: Preview | None = None,
        controls: Sequence[ControlUnit[ImageSource]] = (),
        **values: Any,
    ) -> list[GenerationResult]:
        """Pictures that begin from another; `strength` 0 returns it as it is. See `text_to_image` and `stream`.

        Without width and height they have its size, with one of them its proportions. With `outpaint` the picture stays, and
        its surroundings are made.
        """
        return list(self.stream(_options(prompt, options, values), image, None, progress, cancelled, preview, controls))

    def inpaint(
        self,
        image: ImageSource,
        mask: ImageSource,
        prompt: str = "",
        options: GenerationOptions | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        preview: Preview | None = None,
        controls: Sequence[ControlUnit[ImageSource]] = (),
        **values: Any,
    ) -> list[GenerationResult]:
        """Pictures in which what is white in the mask is painted anew; all else keeps its pixels.

        See `text_to_image` and `stream`.
        """
        return list(self.stream(_options(prompt, options, values), image, mask, progress, cancelled, preview, controls))

    def stream(
        self,
        options: GenerationOptions,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        preview: Preview | None = None,
        controls: Sequence[ControlUnit[ImageSource]] = (),
    ) -> Iterator[GenerationResult]:
        """The pictures of a job as they are finished: from noise, from `image`, or in the masked part of it.

        Args:
            image: a path, the bytes of a file, a PIL image or an array, as in `Upscaler.upscale`.
            mask: the same, of the size of `image`; of a picture with transparency its alpha counts.
            progress: called at each stage and each call of the UNet; what it raises ends the job.
            cancelled: asked between the layers of the networks.
            preview: called after each step with small pictures of what is made at that moment; what it raises ends the job.
                Where a safety checker is used they are blurred.
            controls: ControlNets that steer, each by a picture, which is scaled and cropped to the size of the pictures.

        Raises:
            InputError: the picture or the mask cannot be used, or they differ in size.
            OptionError: an option has a value that it cannot have.
            WeightsError: a LoRA, an embedding or a ControlNet cannot be used.
            OutOfMemoryError: memory does not suffice with any plan.
            TimeLimitError: it takes longer than the operator allows.
            CanceledError: `cancelled` said so.
            ComputeError: the networks give NaN or infinity, in float32 too.
        """
        canvas = self._canvas(options, image, mask)
        self._check_final_size(options, canvas)
        if preview and self.safety_checker:
            preview = _blurring(preview)
        return self._make(options, canvas, controls, Watch(progress, cancelled, preview))

    def forecast(
        self,
        options: GenerationOptions,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        controls: Sequence[ControlUnit[ImageSource]] = (),
    ) -> dict[str, Any]:
        """The memory plan of the pictures, its bytes beside the weights, and seconds by timed calls of the UNet.

        Enlargement by SeeSR is not counted. The plan is that of the last pass, which is the largest.

        Raises:
            InputError, OptionError, WeightsError: as `stream`.
        """
        canvas = self._canvas(options, image, mask)
        notes, engine, final = Notes(canvas.notes), self.engine, self._check_final_size(options, canvas)
        size = self._working_size(canvas.work or canvas.size, notes)
        first = replace(self._recipe(options, "", "", size, notes), controls=self._controls(controls, canvas, size, Watch()))
        passes = [(first, None if image is None else options.strength)]
        if canvas.takes_second_pass(options):
            passes.append((self._second_recipe(first), options.second_pass_strength))
        seconds, memory, plan = 0.0, 0.0, ""
        for recipe, strength in passes:
            work = self.passes.workload(recipe)
            with engine.exclusive():
                engine.exchange_extras(control.spec for control in recipe.acting_controls)
                chosen, batch = engine.first_plan(work), engine.max_batch(work, options.batch_size)
                with engine.components.on(chosen), self.passes.running_unet(recipe):
                    unet = self.passes.controlled_unet(recipe, steps=1)
                    a_call = _seconds_of_a_call(unet, work.height, work.width, 1 + recipe.is_guided)
            seconds += a_call * count_calls(recipe.scheduler(self.checkpoint), recipe.steps, strength)
            memory, plan = engine.costs.estimate(chosen, work.height, work.width, batch), chosen.name
        return {
            "pictures": options.count,
            "width": final[0],
            "height": final[1],
            "plan": plan,
            "memory": round(memory),
            "seconds": round(seconds * options.count, 1),
            "notes": list(notes),
        }

    def unload(self) -> None:
        """Lets go of the networks, the upscaler's too, and of all embeddings: nothing can be made afterwards."""
        for engine in {self.engine, self._upscaler.engine if self._upscaler else self.engine}:
            engine.components.unload()
        self.passes.embedder.clear()
        self._upscaler = None

    # What the pictures begin from.

    def _canvas(self, options: GenerationOptions, image: ImageSource | None, mask: ImageSource | None) -> Canvas:
        return make_canvas(options, self.checkpoint.native_side(self.passes.factor), self.engine.limits, image, mask)

    def _check_final_size(self, options: GenerationOptions, canvas: Canvas) -> Size:
        """The size of the finished pictures.

        Raises:
            OptionError: it is larger than the operator allows.
        """
        scale = (options.second_pass or 1) if canvas.takes_second_pass(options) else 1
        width, height = (round(round(side * scale) * (options.upscale or 1)) for side in canvas.size)
        if max(width, height) > self.engine.limits.output_side:
            most = f"at most {self.engine.limits.output_side} pixels a side are allowed (SEESR_OUTPUT_SIDE)"
            raise OptionError(f"the pictures would be {width}x{height}; {most}. Ask for smaller ones.")
        return width, height

    def _working_size(self, asked: Size, notes: Notes) -> Size:
        """`asked` in multiples of 8, or where the checkpoint cannot make it a smaller or larger size in that ratio."""
        native = self.checkpoint.defaults.largest_side
        largest, most = (native, ROOM * native) if native else (MAX_SIDE, MAX_SIDE)
        scale = largest / max(asked) if max(asked) > most else max(1.0, MIN_SIDE / min(asked))
        width, height = (min(MAX_SIDE, max(MIN_SIDE, _multiple(round(side * scale)))) for side in asked)
        if scale < 1:
            made = f"this was made at {width}x{height} and enlarged"
            notes.add(f"{self.checkpoint.name} makes pictures up to {largest} pixels a side: {made}")
        return width, height

    def _styled(self, options: GenerationOptions) -> tuple[str, str]:
        """Both prompts with the styles and the LoRAs."""
        prompt, negative = options.prompt, options.negative_prompt
        if options.styles:
            prompt, negative = apply_styles(prompt, negative, options.styles, read_styles(self.data / "styles.csv"))
        return prompt + as_tags(options.loras), negative

    def _prompts(self, styled: tuple[str, str], picture: Seeds) -> tuple[str, str]:
        """Both prompts of a picture: of variants and wildcards those that its seed chooses."""
        seed = picture.seed if picture.variation is None else picture.variation
        prompt, negative = (expand_variants(text, seed, self.data / "wildcards") for text in styled)
        return prompt, negative

    def _recipe(self, options: GenerationOptions, prompt: str, negative_prompt: str, size: Size, notes: Notes) -> Recipe:
        defaults = self.checkpoint.defaults
        sampler, schedule = parse_sampler(options.sampler or self.checkpoint.default_sampler, options.schedule)
        if not supports(sampler, schedule):
            notes.add(f"the sampler {sampler.name} has no schedule {schedule}; its own was used")
            schedule = AUTOMATIC
        guidance = defaults.guidance_scale if options.guidance_scale is None else options.guidance_scale
        steps = options.steps or defaults.steps
        words, tags = split_tags(prompt)
        models = {
            "loras": self.passes.loras.load(tags),
            "embeddings": self.passes.embeddings.named_in(words, negative_prompt),
        }
        return Recipe(options, prompt, negative_prompt, sampler, schedule, steps, guidance, size, **models)

    def _controls(
        self, units: Sequence[ControlUnit[ImageSource]], canvas: Canvas, size: Size, watch: Watch
    ) -> tuple[Control, ...]:
        """The ControlNets of a job, with the maps of their pictures at `size`."""
        if len(units) > MAX_CONTROLS:
            raise OptionError(f"{len(units)} ControlNets are asked for; at most {MAX_CONTROLS} are allowed.")
        models, unet = self.data / MODELS, self.engine.components["unet"]
        library = FolderLibrary(model_folders(CONTROLNETS, models), "ControlNet")
        depth = FolderLibrary(model_folders(DEPTH, models), "depth model")
        about = unet, self.passes.factor, self.checkpoint.name, self.engine.dtype
        found = list[Control]()
        for number, unit in enumerate(units):
            watch.checked_progress("control", number, len(units))
            picture = canvas.framed(read_picture(unit.image, self.engine.limits).rgb, size)
            folder, steering = library.find(unit.name), control_map(picture, unit.preprocessor, depth)
            found.append(make_control(unit, folder, steering, *about))
        return tuple(found)

    # The pipeline.

    def _make(
        self, options: GenerationOptions, canvas: Canvas, controls: Sequence[ControlUnit[ImageSource]], watch: Watch
    ) -> Iterator[GenerationResult]:
        notes, pictures, styled = Notes([*canvas.notes, *self.checkpoint.notes]), _seeds(options), self._styled(options)
        size = self._working_size(canvas.work or canvas.size, notes)
        image, mask = (
            one and (one if one.size == size else one.resize(size, Image.Resampling.LANCZOS))
            for one in (canvas.image, canvas.mask)
        )
        steering = self._controls(controls, canvas, size, watch)
        for first in range(0, len(pictures), options.batch_size):
            batch = pictures[first : first + options.batch_size]
            for prompts, alike in groupby(batch, partial(self._prompts, styled)):
                recipe = replace(self._recipe(options, *prompts, size, notes), controls=steering)
                if image is not None:
                    recipe = replace(recipe, image=image, mask=mask, strength=options.strength)
                together = list(alike)
                made = self.passes.make(recipe, together, watch)
                for picture, (output, execution) in zip(together, made, strict=True):
                    output.notes.add(*notes, *self.checkpoint.notes_on(recipe.prompt), *execution.notes)
                    began = time.perf_counter()
                    finished = self._finish(recipe, picture, canvas, output, watch)
                    enlarging = time.perf_counter() - began
                    flagged = self.safety_checker.flags(finished) if self.safety_checker else None
                    if flagged:
                        output.notes.add("the safety checker flagged the picture: it is blurred")
                    yield GenerationResult(
                        image=blurred(finished) if flagged else finished,
                        seed=picture.seed,
                        prompt=recipe.prompt,
                        options=options,
                        weights=self.checkpoint.name,
                        weights_digest=self.checkpoint.digest,
                        dtype=execution.dtype,
                        seconds=execution.seconds | ({} if finished is output.image else {"enlarge": enlarging}),
                        notes=list(output.notes),
                        rung=execution.plan.name,
                        attempts=execution.attempts,
                        vae=output.vae,
                        peak_memory=execution.peak_memory,
                        negative_prompt=recipe.negative_prompt,
                        variation_seed=picture.variation,
                        sampler=recipe.sampler.name,
                        schedule=recipe.schedule,
                        steps=recipe.steps,
                        guidance_scale=recipe.guidance_scale,
                        task=recipe.task,
                        size=canvas.size,
                        loras={one.lora.name: one.lora.hash for one in recipe.loras},
                        embeddings={one.word: one.hash for one in recipe.embeddings},
                        vae_source=self.checkpoint.vae,
                        prediction_type=self.checkpoint.prediction_type,
                        controls=[control.settings() for control in steering],
                        nsfw_content_detected=flagged,
                    )

    def _finish(self, recipe: Recipe, picture: Seeds, canvas: Canvas, output: Output, watch: Watch) -> Image.Image:
        """The finished picture of a pass: second pass, the size that was asked for, paste back, enlargement."""
        options, image, (width, height) = recipe.options, output.image, canvas.size
        has_second_pass = canvas.takes_second_pass(options)
        is_unchanged = image is recipe.image and not has_second_pass  # strength 0
        if has_second_pass and options.second_pass:
            image = self._second_pass(recipe, picture, output, watch)
            width, height = round(width * options.second_pass), round(height * options.second_pass)
        elif is_unchanged and canvas.image is not None:
            image = canvas.image
        if not (is_unchanged and canvas.finish):
            image = self._enlarged(image, (width, height), picture, watch, output.notes)
        image = canvas.finish(image) if canvas.finish else image
        if options.upscale:
            larger = round(image.width * options.upscale), round(image.height * options.upscale)
            image = self._enlarged(image, larger, picture, watch, output.notes)
        if canvas.profile:
            image = image.copy()
            image.info["icc_profile"] = canvas.profile
        return image

    def _second_pass(self, recipe: Recipe, picture: Seeds, output: Output, watch: Watch) -> Image.Image:
        options, second = recipe.options, self._second_recipe(recipe)
        (width, height), image, latents = second.size, None, None
        if options.second_pass_upscaler == "latent" and output.latents.numel():
            shape = height // self.passes.factor, width // self.passes.factor
            latents = torch.nn.functional.interpolate(output.latents, size=shape, mode="bilinear", antialias=False)
        else:
            image = output.image
            if options.second_pass_upscaler == "Lanczos":
                image = image.resize((width, height), Image.Resampling.LANCZOS)
            image = self._enlarged(image, (width, height), picture, watch, output.notes)
        second = replace(second, image=image, latents=latents)
        ((made, _),) = self.passes.make(second, [picture], watch)
        output.notes.add(*made.notes)
        return made.image

    def _second_recipe(self, first: Recipe) -> Recipe:
        options = first.options
        scale = min(options.second_pass or 1, MAX_SIDE / max(first.size))
        width, height = (_multiple(round(side * scale)) for side in first.size)
        steps, strength = options.second_pass_steps or first.steps, options.second_pass_strength
        return replace(first, size=(width, height), image=None, mask=None, steps=steps, strength=strength)

    def _enlarged(self, image: Image.Image, size: Size, picture: Seeds, watch: Watch, notes: Notes) -> Image.Image:
        """The picture at exactly `size`; what becomes larger, in about its proportions, is enlarged by SeeSR."""
        scales = size[0] / image.width, size[1] / image.height
        scale = max(scales)
        if scale > 1 and min(scales) > scale / 2:
            options = Options(max_side=round(max(image.size) * scale), seed=picture.seed)
            result = self.upscaler.upscale(image, options, watch.checked_progress)
            notes.add(*result.notes)
            image = result.image
        return resize(image, size)


def _options(prompt: str, options: GenerationOptions | None, values: dict[str, Any]) -> GenerationOptions:
    if options is not None and values:
        raise OptionError(f"give options, or {', '.join(values)} by name, not both.")
    if options is None:
        return GenerationOptions.make(prompt=prompt or None, **values)
    return GenerationOptions.make(**(options.model_dump() | {"prompt": prompt})) if prompt else options


def _blurring(preview: Preview) -> Preview:
    """Shows blurred pictures to `preview`."""
    return lambda pictures: preview([blurred(picture) for picture in pictures])


def _seeds(options: GenerationOptions) -> list[Seeds]:
    """Those of all pictures: with a variation the variation's count up, otherwise the pictures' own."""

    def drawn(seed: int | None) -> int:
        return secrets.randbits(32) if seed is None or seed == -1 else seed

    seed, count = drawn(options.seed), range(options.count)
    if options.variation_strength:
        variation = drawn(options.variation_seed)
        return [Seeds(seed, (variation + number) % 2**32) for number in count]
    return [Seeds((seed + number) % 2**32) for number in count]


def _seconds_of_a_call(unet: Any, height: int, width: int, batch: int) -> float:
    """The faster of two calls: the first one warms up."""
    latents = torch.zeros(batch, unet.config.in_channels, height, width, device=unet.device, dtype=unet.dtype)
    embeds = torch.zeros(batch, TOKENS, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        unet(latents, 999, encoder_hidden_states=embeds)[0].cpu()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _multiple(side: int) -> int:
    """The next multiple of 8, not smaller."""
    return -(-side // MULTIPLE_OF) * MULTIPLE_OF
