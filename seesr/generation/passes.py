"""One pass of generation: prompt, encode, denoise, vae_decode, finish, for several pictures that differ in their seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from seesr.autoencoder.vae import VAETiling, decode, encode, tiling_mode, vae_scale_factor
from seesr.debug import without_warnings
from seesr.engine import Deadline, Engine, Execution
from seesr.errors import CanceledError, OptionError
from seesr.generation.adapters import adapted
from seesr.generation.checkpoints import Checkpoint
from seesr.generation.controlnet import Control, ControlledUNet
from seesr.generation.embeddings import Embedding, Embeddings
from seesr.generation.library import EMBEDDINGS, LORAS, VAE_APPROX, Library, model_folders
from seesr.generation.lora import Loras, WeightedLora
from seesr.generation.lora_tags import split_tags
from seesr.generation.noise import draw_noise
from seesr.generation.options import GenerationOptions
from seesr.generation.previews import Preview, Previews, load_taesd
from seesr.generation.prompt_embeds import TOKENS, PromptEmbedder, TextSettings
from seesr.generation.prompt_syntax import Fragment, changes_with_steps, parse_negative_prompt, parse_prompt
from seesr.generation.samplers import Sampler, make_scheduler
from seesr.images.resize import to_image, to_tensor
from seesr.images.sizes import Size
from seesr.machine.device import to_device_of
from seesr.notes import Notes, add_to_all
from seesr.planning.nan_guard import run_with_nan_guard
from seesr.planning.plan import MemoryPlan, TileSettings, Workload
from seesr.stages import Progress, Stages

MAX_CHUNKS = 1024
"""Of 75 tokens, of a prompt with all that it changes to: 320 MB of SD-Turbo's embeddings."""
ONE_STEP = 1 + 1e-6
"""Steps that are done at least; 1 / steps * steps may be less than 1."""
Cancelled = Callable[[], bool]
"""Asked between the layers of the networks; what is true ends the job."""


@dataclass(frozen=True)
class Recipe:
    """All that makes the pictures of a pass, but their seeds: resolved options."""

    options: GenerationOptions
    prompt: str
    """That of the options with its styles and LoRAs, and with one of each of its variants."""
    negative_prompt: str
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
    loras: tuple[WeightedLora, ...] = ()
    """Those that the prompt asks for."""
    embeddings: tuple[Embedding, ...] = ()
    """Those that a prompt names."""
    controls: tuple[Control, ...] = ()

    @property
    def acting_controls(self) -> tuple[Control, ...]:
        """Those that change something."""
        return tuple(control for control in self.controls if control.unit.weight)

    @property
    def is_guided(self) -> bool:
        """Whether the UNet also predicts without the prompt, which the prediction then moves away from."""
        return self.guidance_scale > 1

    def scheduler(self, checkpoint: Checkpoint, seed: int = 0) -> Any:
        """A new one; `seed` is for samplers that draw their noise themselves."""
        return make_scheduler(checkpoint.scheduler_config, self.sampler, self.schedule, seed, self.steps)

    @property
    def task(self) -> str:
        if self.mask is not None:
            return "inpainting"
        return "text to image" if self.image is None and self.latents is None else "image to image"


@dataclass(frozen=True)
class Watch:
    """Who wants to know how far a job is, and whether it is to end."""

    progress: Progress | None = None
    cancelled: Cancelled | None = None
    preview: Preview | None = None

    def check(self) -> None:
        """Raises CanceledError once the job is to end."""
        if self.cancelled is not None and self.cancelled():
            raise CanceledError("the job was cancelled.")

    def checked_progress(self, stage: str, done: int, total: int) -> None:
        """Reports progress, and looks whether the job is to end."""
        self.check()
        if self.progress is not None:
            self.progress(stage, done, total)


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
    vae: str
    """How the VAE was computed, as in `Result.vae`."""
    notes: Notes = field(default_factory=Notes)


class Passes:
    """Runs passes on an engine, each picture of a pass together with others as far as memory and sampler allow.

    Args:
        models: folder of the user's models, with `loras/`, `embeddings/` and `vae_approx/` in it.
        vae_tile: side of the VAE's tiles in latent pixels, 0 for none; None leaves it to the memory plan.
    """

    def __init__(self, engine: Engine, checkpoint: Checkpoint, models: Path, vae_tile: int | None = None) -> None:
        self.engine, self.checkpoint, self.vae_tile = engine, checkpoint, vae_tile
        self.models, networks = models, (engine.components, checkpoint.name)
        self.loras = Loras(Library(model_folders(LORAS, models), "LoRA"), *networks)
        self.embeddings = Embeddings(Library(model_folders(EMBEDDINGS, models), "embedding"), *networks)
        self.embedder = PromptEmbedder(engine.components, checkpoint.digest)
        self.factor = vae_scale_factor(engine.components["vae"])
        self._previews: Previews | None = None

    def workload(self, recipe: Recipe) -> Workload:
        """What determines the memory of one picture."""
        width, height = (side // self.factor for side in recipe.size)
        # With guidance the UNet predicts twice for each picture, which needs what two particles need.
        settings = TileSettings(tile=0, vae_tile=self.vae_tile, particles=2 if recipe.is_guided else 1)
        return Workload(height, width, settings)

    def make(self, recipe: Recipe, pictures: list[Seeds], watch: Watch) -> list[tuple[Output, Execution]]:
        """One pass for each of the pictures, in their order.

        Raises:
            OutOfMemoryError: memory does not suffice with any plan.
            TimeLimitError: it takes longer than the operator allows.
            CanceledError: `watch` says so.
            ComputeError: the networks give NaN or infinity, in float32 too.
        """
        engine, work, made = self.engine, self.workload(recipe), list[tuple[Output, Execution]]()
        with engine.exclusive():
            engine.exchange_extras(control.spec for control in recipe.acting_controls)
            together = 1 if recipe.sampler.one_by_one else engine.max_batch(work, len(pictures))
            for first in range(0, len(pictures), together):
                jobs = pictures[first : first + together]
                deadline = engine.deadline(len(jobs), spent=0.0)

                def check(deadline: Deadline = deadline) -> None:
                    deadline.check()
                    watch.check()

                run = partial(self._run, recipe, deadline.checked(watch.progress), check, watch.preview)
                made += engine.run(jobs, work, run, engine.stages())
        return made

    def _run(
        self,
        recipe: Recipe,
        report: Progress,
        check: Callable[[], None],
        preview: Preview | None,
        jobs: list[Seeds],
        plan: MemoryPlan,
        stages: Stages,
    ) -> list[Output]:
        """One pass of the pipeline, for several pictures together."""
        components, vae = self.engine.components, self.engine.components["vae"]
        notes, tiling = [Notes() for _ in jobs], VAETiling(plan.vae_tile, plan.map_storage)
        if recipe.image is not None and recipe.strength == 0:
            return [Output(recipe.image, torch.empty(0), "whole", note) for note in notes]
        report("prompt", 0, 1)
        with stages.stage("prompt"):
            prompts = _Prompts(self.embedder, recipe, check)
        begun = recipe.latents
        if recipe.image is not None:
            report("encode", 0, 1)
            with stages.stage("encode") as log, components.running("vae"), components.checked([vae], check):
                pixels = to_tensor(recipe.image)
                begun = log(run_with_nan_guard("encode", [vae], lambda: encode(vae, pixels, tiling), notes).float())
        if preview and self._previews is None:
            with components.running("vae"), components.checked([vae], check):
                self._previews = Previews(vae, tiling, load_taesd(self.models / VAE_APPROX, vae), self.engine.clock)
        with stages.stage("denoise") as log, self.running_unet(recipe), self._adapted(recipe.loras, notes):
            latents = log(self._denoise(recipe, begun, prompts, jobs, report, check, preview, notes))
        report("vae_decode", 0, 1)
        with stages.stage("vae_decode") as log, components.running("vae"), components.checked([vae], check):
            compute = partial(decode, vae, to_device_of(latents, vae), tiling)
            pixels = log(run_with_nan_guard("vae_decode", [vae], compute, notes))
        with stages.stage("finish"):
            images = [to_image(one) for one in pixels.cpu().split(1)]
        height, width = latents.shape[2:]
        mode = tiling_mode(vae, height, width, plan.vae_tile)
        return [
            Output(image, one, mode, note) for image, one, note in zip(images, latents.cpu().split(1), notes, strict=True)
        ]

    def running_unet(self, recipe: Recipe) -> AbstractContextManager[None]:
        """The UNet on the device, and what steers it."""
        return self.engine.components.running("unet", *(control.spec.name for control in recipe.acting_controls))

    def controlled_unet(self, recipe: Recipe, steps: int) -> ControlledUNet:
        """The UNet, and what steers it; `steps` is the calls of the scheduler."""
        components = self.engine.components
        controls = [(components[one.spec.name], one.unit, one.hint(recipe.size)) for one in recipe.acting_controls]
        return ControlledUNet(components["unet"], controls, steps)

    def _denoise(
        self,
        recipe: Recipe,
        begun: Tensor | None,
        prompts: _Prompts,
        jobs: list[Seeds],
        report: Progress,
        check: Callable[[], None],
        preview: Preview | None,
        notes: list[Notes],
    ) -> Tensor:
        with without_warnings("transformers"):  # of image processors that nothing here uses
            from seesr.generation.pipelines import ImageToImage, Inpaint, TextToImage

        unet, count = self.engine.components["unet"], len(jobs)
        work, channels = self.workload(recipe), self.engine.components["vae"].config.latent_channels
        shape = 1, channels, work.height, work.width
        scheduler = recipe.scheduler(self.checkpoint, jobs[0].seed)
        strength = min(1.0, max(recipe.strength, ONE_STEP / recipe.steps))
        counted = _CountedCalls(report, count_calls(scheduler, recipe.steps, strength if begun is not None else None))
        controlled = self.controlled_unet(recipe, counted.total)
        networks = [unet, *(self.engine.components[control.spec.name] for control in recipe.acting_controls)]

        def after_step(pipeline: Any, index: int, _: Any, state: dict[str, Any]) -> dict[str, Any]:
            controlled.step = index + 1
            if preview and self._previews is not None:
                preview(self._previews.of(state["latents"]))
            return prompts.update(unet, count, pipeline, index, state)

        def compute() -> Tensor:
            if self._previews is not None:
                self._previews.begin()
            generators = [torch.Generator().manual_seed(job.seed) for job in jobs]
            variation = recipe.options.variation_strength
            noise = torch.cat(
                [draw_noise(one, shape, job.variation, variation) for one, job in zip(generators, jobs, strict=True)]
            )
            network, controlled.step = prompts.composed(controlled), 0
            positive, negative = prompts.pair(0, unet, count)
            arguments = {
                "prompt_embeds": positive,
                "negative_prompt_embeds": negative,
                "num_inference_steps": recipe.steps,
                "guidance_scale": recipe.guidance_scale,
                "generator": generators,
                "output_type": "latent",
                "callback_on_step_end": after_step,
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
            with self.engine.components.checked(networks, check), counted.watching(network):
                return pipeline(**arguments).images.float()

        return run_with_nan_guard("denoise", networks, compute, notes)

    @contextmanager
    def _adapted(self, loras: tuple[WeightedLora, ...], notes: list[Notes]) -> Iterator[None]:
        """The UNet with its LoRAs. What is compiled does not see them, and to compile it anew would take minutes a job."""
        unet, changes = self.engine.components["unet"], [(one.lora.unet, one.unet_weight) for one in loras]
        eager = self.engine.components.compiled and bool(loras)
        if eager:
            add_to_all(notes, "with a LoRA the UNet runs without what was compiled, or it would be compiled for each job")
        with torch.compiler.set_stance("force_eager") if eager else nullcontext(), adapted(unet, changes):
            yield


class _Prompts:
    """The embeddings of a pass: of the negative prompt, and of the prompt at each step."""

    def __init__(self, embedder: PromptEmbedder, recipe: Recipe, check: Callable[[], None]) -> None:
        self.recipe, self.embedder = recipe, embedder
        self.settings = TextSettings(recipe.options.clip_skip, recipe.loras, recipe.embeddings)
        subprompts, negative = parse_prompt(split_tags(recipe.prompt)[0]), parse_negative_prompt(recipe.negative_prompt)
        self.weights = [subprompt.weight for subprompt in subprompts]
        self.changes = changes_with_steps([*subprompts, negative])
        steps = range(recipe.steps if self.changes else 1)
        self._negative = [tuple(negative.fragments(step, recipe.steps)) for step in steps]
        self._by_step = [[tuple(one.fragments(step, recipe.steps)) for one in subprompts] for step in steps]
        # Each text once: most steps have the same.
        self._embeds, chunks = dict[tuple[Fragment, ...], Tensor](), 0
        for fragments in dict.fromkeys([*self._negative, *(one for row in self._by_step for one in row)]):
            check()
            self._embeds[fragments] = embedder.embed(list(fragments), self.settings)
            chunks += self._embeds[fragments].shape[1] // TOKENS
            if chunks > MAX_CHUNKS:
                raise OptionError(f"the prompt and its changes exceed {MAX_CHUNKS} chunks of 75 tokens; shorten it.")

    @property
    def is_composed(self) -> bool:
        return (len(self.weights) > 1 or self.weights[0] != 1) and self.recipe.is_guided

    def composed(self, unet: Any) -> Any:
        """The UNet, which composes the prompts that AND joins."""
        from seesr.generation.pipelines import ComposedUNet

        return ComposedUNet(unet, self._row(0), self.weights) if self.is_composed else unet

    def pair(self, step: int, unet: Any, count: int) -> tuple[Tensor, Tensor]:
        """The embeddings of the prompt and of the negative prompt at a step, equally long."""
        row, negative = self._row(step), self._embeds[self._negative[min(step, len(self._negative) - 1)]]
        *row, negative = self.embedder.padded([*row, negative], self.settings)
        embeds = row[0]
        if len(row) > 1 and not self.is_composed:  # without guidance the prompts are mixed
            total = sum(self.weights) or 1.0
            embeds = torch.stack([weight / total * one for weight, one in zip(self.weights, row, strict=True)]).sum(dim=0)
        positive, negative = (one.to(unet.device, unet.dtype).expand(count, -1, -1) for one in (embeds, negative))
        return positive, negative

    def update(self, unet: Any, count: int, pipeline: Any, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """The prompts of the next call, after call `index` of `pipeline.num_timesteps`."""
        if not self.changes:
            return state
        step = (index + 1) * self.recipe.steps // pipeline.num_timesteps
        if self.is_composed:
            pipeline.unet.embeds = self._row(step)
        positive, negative = self.pair(step, unet, count)
        return state | {
            "prompt_embeds": torch.cat([negative, positive]) if pipeline.do_classifier_free_guidance else positive
        }

    def _row(self, step: int) -> list[Tensor]:
        return [self._embeds[fragments] for fragments in self._by_step[min(step, len(self._by_step) - 1)]]


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


def count_calls(scheduler: Any, steps: int, strength: float | None) -> int:
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
