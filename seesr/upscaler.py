"""The upscaling pipeline: read, clean, resize, tag, prompt, encode, denoise, vae_decode, color_fix, finish."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from PIL import Image
from torch import Tensor

from seesr.autoencoder.vae import VAETiling
from seesr.conditioning import Conditioner, Tagging
from seesr.debug import is_debugging, show_debug_log
from seesr.engine import Engine, Execution
from seesr.errors import OptionError
from seesr.images.colour import COLOR_FIXES
from seesr.images.edges import enhance_edges
from seesr.images.encoded import ImageSource
from seesr.images.finish import finish, finish_deep
from seesr.images.picture import Picture
from seesr.images.read import Frame, read_frames, read_picture
from seesr.images.resize import crop, network_input, to_array, to_image
from seesr.images.save import Deep
from seesr.images.sizes import Sizes, plan_sizes
from seesr.machine.out_of_memory import oom_as
from seesr.networks import SeeSRNetworks, network_costs, seesr_networks
from seesr.notes import Notes, add_to_all
from seesr.options import Limits, Options
from seesr.planning.plan import MemoryPlan, TileSettings, Workload
from seesr.result import UpscaledFrames, UpscaleResult
from seesr.stages import Progress, Stages
from seesr.tagging.prompt import Tag, load_tag_list
from seesr.weights.resolve import WeightsFolder, resolve_weights

Job = tuple[Picture, int]
"""A picture to upscale, and its seed."""


@dataclass(frozen=True, eq=False)
class Output:
    """What the pipeline gives for one picture."""

    image: Image.Image
    deep: Deep | None
    tagging: Tagging
    prompt: str
    notes: Notes


class Upscaler:
    """SeeSR's networks, loaded once, and the pipeline. Safe to share between threads: one picture runs at a time.

    PyTorch keeps memory for each thread that ever computed: a server should let one lasting thread call it.
    """

    def __init__(self, engine: Engine, weights: WeightsFolder) -> None:
        self.engine, self.weights, self.defaults = engine, weights, weights.defaults
        self.networks = SeeSRNetworks(engine.components, weights)
        self.conditioner = Conditioner(engine.components, load_tag_list(weights.root / "ram", self.networks.tag_count))

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
        """Loads the networks.

        Args:
            weights: a folder in the published layout, `full` or `tiny`; None looks at SEESR_WEIGHTS, then takes the full
                model if the cache has it, else the embedded small one.
            device: auto, cpu, cuda, cuda:N or mps.
            dtype: auto, float32, bfloat16 or float16.
            limits: what may be asked for; None reads the SEESR_ environment variables.
            memory_limit: bytes of the device's memory (the machine's, on a CPU) to use at most, weights included.
            sequential: keep only the running network on the device; on a CPU, in memory: the others are read anew each
                time. There that is done anyway where memory does not suffice for all, with a warning.
            compiled: compile the networks' blocks at their first run, which takes minutes and needs a compiler.

        Raises:
            WeightsError: files are missing or do not fit.
            OptionError: the device or dtype is not available, or there is no compiler.
            OutOfMemoryError: the networks do not fit.

        With SEESR_DEBUG=1 every stage is shown on standard error from then on.
        """
        if is_debugging():
            show_debug_log()
        found, on = resolve_weights(weights), (device, dtype, limits, memory_limit, sequential, compiled)
        return cls(Engine.load(found.name, partial(seesr_networks, found), network_costs, found.defaults.dtype, *on), found)

    def upscale(
        self, image: ImageSource, options: Options | None = None, progress: Progress | None = None, **values: Any
    ) -> UpscaleResult:
        """Upscales one picture.

        Args:
            image: a path, the bytes of a file, an open file, a PIL image, or an array of uint8, uint16, or floating
                point from 0 to 1: grey `(H, W)`, RGB `(H, W, 3)` or RGBA `(H, W, 4)`.
            options: all options at once; or give them by name: `upscale(image, scale=2, preset="quality")`.
            progress: called at each stage and step; what it raises ends the picture.

        Raises:
            InputError: the picture cannot be used.
            OptionError: an option has a value that it cannot have, or there are both `options` and options by name.
            OutOfMemoryError: memory does not suffice with any plan.
            TimeLimitError: it takes longer than the operator allows.
            ComputeError: the networks give NaN or infinity, in float32 too.
        """
        return self.upscale_many([image], options, progress, **values)[0]

    def upscale_many(
        self,
        images: Sequence[ImageSource],
        options: Options | None = None,
        progress: Progress | None = None,
        together: int | None = None,
        **values: Any,
    ) -> list[UpscaleResult]:
        """Upscales several pictures, up to `together` neighbours of one size in one pass where memory suffices.

        Without `together` that is 8 on a GPU, and 1 on a CPU, where a pass of several takes longer than several passes.
        Otherwise as `upscale`. With a seed each picture gets that one: what becomes of it does not depend on the others.

        All are read and their sizes looked at first, and an error with one is an error of all: for many, or such as may
        be damaged, call `upscale` for each.
        """
        if options is not None and values:
            raise OptionError(f"give options, or {', '.join(values)} by name, not both.")
        options, engine = self.with_defaults(options or Options.make(**values)), self.engine
        with engine.exclusive():
            stages, began = engine.stages(), engine.clock()
            with stages.stage("read"):
                pictures = [read_picture(image, engine.limits) for image in images]
            reading = (engine.clock() - began) / max(1, len(images))
            return self._upscale_pictures(pictures, options, progress, together, reading, stages)

    def upscale_frames(
        self, image: ImageSource, options: Options | None = None, progress: Progress | None = None, **values: Any
    ) -> UpscaledFrames:
        """Upscales all frames of an animation, or all pages of a file, each when it is asked for; `save` writes them.

        All have one seed, which is drawn where none is given. Otherwise as `upscale`, for each frame.

        Args:
            progress: called also with `frame`, the frames that are done, and their number, before each of them.

        Raises:
            InputError: there are more frames than the operator allows, or the source cannot be used.
            OptionError: as of `upscale`.
        """
        if options is not None and values:
            raise OptionError(f"give options, or {', '.join(values)} by name, not both.")
        options = self.with_defaults(options or Options.make(**values))
        if options.seed is None:
            options = options.model_copy(update={"seed": secrets.randbits(32)})
        sequence, frames = read_frames(image, self.engine.limits)
        if options.bits > 8 and sequence.kind == "animation" and sequence.count > 1:
            raise OptionError(f"bits is {options.bits}, and an animation has 8 bits a channel; leave out bits.")
        return UpscaledFrames(sequence, self._upscale_each(frames, sequence.count, options, progress))

    def _upscale_each(
        self, frames: Iterator[Frame], count: int, options: Options, progress: Progress | None
    ) -> Iterator[UpscaleResult]:
        engine = self.engine
        for number in range(count):
            if progress is not None:
                progress("frame", number, count)
            with engine.exclusive():
                stages, began = engine.stages(), engine.clock()
                with stages.stage("read"):
                    frame = next(frames)
                reading = engine.clock() - began
                (result,) = self._upscale_pictures([frame.picture], options, progress, 1, reading, stages)
            yield replace(result, duration=frame.duration)

    def tags(self, image: ImageSource) -> list[Tag]:
        """What RAM finds in a picture, in the order of its tag list.

        Raises:
            InputError: the picture cannot be used.
            OutOfMemoryError: memory does not suffice.
        """
        with self.engine.exclusive():
            rgb = read_picture(image, self.engine.limits).srgb
            with oom_as(
                f"memory ran out on {self.engine.device} while RAM looked at {rgb.width}x{rgb.height} pixels. "
                "Give a smaller picture or another device, or close other programs."
            ):
                return self.conditioner.tag(rgb).tags

    def with_defaults(self, options: Options) -> Options:
        """`options` with what the weights ask for where nothing was asked."""
        return options if options.steps is not None else options.model_copy(update={"steps": self.defaults.steps})

    def clear_caches(self) -> None:
        """Forgets prompts and pictures seen before."""
        with self.engine.exclusive():
            self.conditioner.clear()

    def _upscale_pictures(
        self,
        pictures: list[Picture],
        options: Options,
        progress: Progress | None,
        together: int | None,
        reading: float,
        stages: Stages,
    ) -> list[UpscaleResult]:
        """Upscales what was read; `reading` is the seconds that took for each, `stages` those of the first batch."""
        engine, results = self.engine, []
        groups = [list(same) for _, same in groupby(pictures, key=lambda picture: picture.rgb.size)]
        for group, sizes in [(group, self._plan_sizes(group[0], options)) for group in groups]:
            work = self._workload(sizes, options)
            count = engine.max_batch(work, min(len(group), together or engine.preferred_batch))
            for first in range(0, len(group), count):
                batch = group[first : first + count]
                report = engine.deadline(len(batch), spent=reading * len(batch)).checked(progress)
                seeds = [secrets.randbits(32) if options.seed is None else options.seed for _ in batch]
                run = partial(self._run, sizes, options, report)
                jobs = list(zip(batch, seeds, strict=True))
                made = zip(jobs, engine.run(jobs, work, run, stages), strict=True)
                results += [self._result(*job, *output, sizes, work, options) for job, output in made]
                stages = engine.stages()
        return results

    def _run(
        self, sizes: Sizes, options: Options, report: Progress, jobs: list[Job], plan: MemoryPlan, stages: Stages
    ) -> list[Output]:
        """The pipeline, for pictures of one size together."""
        networks, notes = self.networks, [Notes(picture.notes) for picture, _ in jobs]
        tiles, tiling = plan.tiles(*networks.latent_size(sizes)), VAETiling(plan.vae_tile, plan.map_storage)
        inputs, cleaned = [picture.rgb for picture, _ in jobs], [picture.pixels for picture, _ in jobs]
        if options.clean and networks.has_cleaner:
            with stages.stage("clean"):
                cleaned = networks.clean(cleaned, options.clean, sizes.working, report, notes)
        elif 0 < options.clean < 1:
            add_to_all(notes, f"clean {options.clean:g} changes nothing: the weights {self.weights.name} have no cleaner")
        sharp = cleaned
        if options.edges:
            with stages.stage("edges"):
                sharp = [enhance_edges(rgb, options.edges) for rgb in cleaned]
        with stages.stage("resize") as log:
            image = log(network_input(sharp, sizes))
        report("tags", 0, 1)
        with stages.stage("tags"):
            taggings = [self.conditioner.tag(picture.srgb) for picture, _ in jobs]
        with stages.stage("prompt"):
            prompts = [self.conditioner.prompt(tagging, options) for tagging in taggings]
            conditions = self.conditioner.conditions(inputs, taggings, sizes, tiles, options, report, notes)
        report("encode", 0, 1)
        with stages.stage("encode") as log:
            latents = log(networks.encode(image, tiling, notes))
        with stages.stage("denoise") as log:
            latents = networks.noisy(latents, [seed for _, seed in jobs], options.particles)
            latents = log(networks.denoise(latents, image, conditions.for_tiles, tiles, options, report, notes))
        report("vae_decode", 0, 1)
        with stages.stage("vae_decode") as log:
            pixels = log(networks.vae_decode(latents, tiling, notes))
        with stages.stage("colour") as log:
            source = network_input(cleaned, sizes) if options.edges else image
            pixels = log(COLOR_FIXES[options.color_fix](pixels, source.to(pixels.device)))
            for number, (picture, _) in enumerate(jobs):
                if picture.is_grey:
                    pixels[number] = pixels[number].mean(dim=0)
        with stages.stage("finish"):
            by_job = zip(pixels.split(1), jobs, notes, strict=True)
            finished = [_finish(crop(rgb, sizes), job[0], sizes, options, told) for rgb, job, told in by_job]
        report("done", 1, 1)
        images, deep = zip(*finished, strict=True)
        return [Output(*values) for values in zip(images, deep, taggings, prompts, notes, strict=True)]

    def _result(
        self,
        picture: Picture,
        seed: int,
        output: Output,
        execution: Execution,
        sizes: Sizes,
        work: Workload,
        options: Options,
    ) -> UpscaleResult:
        vae = self.networks.tiling_mode(work.height, work.width, execution.plan.vae_tile)
        output.notes.add(*execution.notes)
        if vae == "estimated tiles":
            output.notes.add("too large for an exact tiled VAE: its statistics were estimated from sample tiles")
        metadata = picture.metadata.enlarged(sizes.input, sizes.output)
        output.image.info |= metadata.pillow_info()
        return UpscaleResult(
            image=output.image,
            deep=output.deep,
            metadata=metadata,
            input=picture.srgb,
            seed=seed,
            prompt=output.prompt,
            tags=output.tagging.tags,
            sizes=sizes,
            options=options,
            weights=self.weights.name,
            weights_digest=self.weights.digest,
            dtype=execution.dtype,
            seconds=execution.seconds,
            notes=list(output.notes),
            rung=execution.plan.name,
            attempts=execution.attempts,
            vae=vae,
            peak_memory=execution.peak_memory,
        )

    def _plan_sizes(self, picture: Picture, options: Options) -> Sizes:
        size, requirements = picture.rgb.size, self.networks.size_requirements
        return plan_sizes(size, options.scale, options.max_side, requirements, self.engine.limits)

    def _workload(self, sizes: Sizes, options: Options) -> Workload:
        height, width = self.networks.latent_size(sizes)
        return Workload(height, width, TileSettings(options.tile, options.tile_overlap, options.vae_tile, options.particles))


def _finish(
    pixels: Tensor, picture: Picture, sizes: Sizes, options: Options, notes: Notes
) -> tuple[Image.Image, Deep | None]:
    """The picture that the user asked for, and its samples where these have more than 8 bits."""
    if options.bits > 8:
        image, samples = finish_deep(to_array(pixels), picture, sizes, options.sharpen)
        return image, Deep(samples, options.bits)
    if picture.bits > 8:
        notes.add(f"{picture.bits} bits a channel, the result has 8")
    return finish(to_image(pixels), picture, sizes, options.sharpen), None
