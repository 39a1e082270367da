"""From the requests of txt2img and img2img to jobs: pure, without the studio.

What is sent counts first, then what an infotext says, then A1111's default where it means the same here; of size, steps,
guidance and sampler that are not sent the checkpoint's own are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seesr.errors import OptionError
from seesr.generation.infotext import Infotext
from seesr.generation.like import values_from_infotext
from seesr.generation.options import MAX_SEED, GenerationOptions
from seesr.generation.samplers import AUTOMATIC, SCHEDULES, parse_sampler
from seesr.images.sizes import Size
from seesr.jobs import GenerationRequest, content_hash
from seesr.notes import Notes
from seesr.options import Limits
from seesr.studio.api.model_lists import CheckpointEntry, Known
from seesr.studio.api.sdapi.control_units import control_units
from seesr.studio.api.sdapi.errors import UnprocessableError
from seesr.studio.api.sdapi.fields import Generation, ImageToImage, TextToImage
from seesr.studio.api.sdapi.noting import NO_SCRIPT, note_unused, within
from seesr.studio.api.sdapi.pictures import FITS, begin, from_base64
from seesr.studio.api.sdapi.user_options import CHECKPOINT, UserOptions
from seesr.studio.errors import UnknownNameError

SIMILAR_SAMPLERS = {
    "dpm++ 2s a": "Euler a",
    "dpm++ 2m sde heun": "DPM++ 2M SDE",
    "dpm fast": "DPM++ 2M",
    "dpm adaptive": "DPM++ 2M",
    "restart": "Heun",
    "ddim cfg++": "DDIM",
}
"""A1111's samplers that are not here, and what is taken instead."""
SIMILAR_SCHEDULES = {"polyexponential": "Exponential", "normal": "Automatic", "ddim": "Uniform", "turbo": "SGM Uniform"}
"""Likewise its noise schedules."""
FILLS = ("fill", "original", "latent noise", "latent nothing")
"""By the numbers of `inpainting_fill`."""


@dataclass(frozen=True)
class Translated:
    """A job, and what the client should know of it."""

    request: GenerationRequest
    inputs: dict[str, bytes]
    """Its pictures by content hash."""
    notes: tuple[str, ...]
    checkpoint: CheckpointEntry
    is_grid_asked: bool


def text_to_image(body: TextToImage, options: UserOptions, known: Known, limits: Limits) -> Translated:
    """The job of a txt2img request.

    Raises:
        OptionError: a value is outside its limits where another would not be what was asked for.
        UnknownNameError: a checkpoint, VAE or sampler is unknown.
        UnprocessableError: a picture cannot be read, or a script is unknown.
    """
    job = _Job(body, options, known, limits)
    job.read_common()
    if body.enable_hr:
        job.read_second_pass(body)
    return job.finish("text to image")


def image_to_image(body: ImageToImage, options: UserOptions, known: Known, limits: Limits) -> Translated:
    """The job of an img2img request; raises as `text_to_image`, and UnknownNameError without a picture."""
    job = _Job(body, options, known, limits)
    job.read_common()
    has_mask = job.read_begin(body)
    return job.finish("inpainting" if has_mask else "image to image")


class _Job:
    """A job while it is read from a request."""

    def __init__(self, body: Generation, options: UserOptions, known: Known, limits: Limits) -> None:
        self.body, self.known, self.limits = body, known, limits
        self.sent = body.model_fields_set
        self.infotext = Infotext.parse(body.infotext)
        self.values: dict[str, Any] = values_from_infotext(body.infotext) if body.infotext else {}
        self.notes, self.inputs = Notes(), dict[str, bytes]()
        self.begin = dict[str, str]()
        self.options = options.changed(self._of_infotext() | body.override_settings)
        unknown = sorted(body.override_settings.keys() - UserOptions.model_fields.keys())
        if unknown:
            self.notes.add("some of override_settings are not known here, and were left out")

    def _of_infotext(self) -> dict[str, Any]:
        """The checkpoint that an infotext names, where it is there."""
        names = [self.infotext.parameters.get(key, "") for key in ("Model hash", "Model")]
        found = [entry for name in names if name for entry in self.known.checkpoints if entry.is_called(name)]
        if any(names) and not found:
            self.notes.add("the checkpoint of the infotext is not here; yours was used")
        return {CHECKPOINT: found[0].name} if found else {}

    def read_common(self) -> None:
        """What both kinds of requests have."""
        body, values = self.body, self.values
        if body.script_name.strip().lower() not in NO_SCRIPT:
            raise UnprocessableError(f"unknown script {body.script_name[:100]!r}; there are none.")
        note_unused(body, self.notes)
        for name in ("prompt", "negative_prompt"):
            self._take(name, name)
        values["styles"] = self._styles()
        for sent, name in (("seed", "seed"), ("subseed", "variation_seed")):
            if sent in self.sent:
                values[name] = self._seed(getattr(body, sent))
        for sent, name in (
            ("subseed_strength", "variation_strength"),
            ("steps", "steps"),
            ("cfg_scale", "guidance_scale"),
        ):
            if sent in self.sent:
                values[name] = self._clamped(sent, name)
        values |= {"batch_size": body.batch_size, "batch_count": body.n_iter}
        self._read_sampler()
        for side in ("width", "height"):
            if side in self.sent:
                values[side] = self._side(side, getattr(body, side))
        if self.options.CLIP_stop_at_last_layers != 1 or "clip_skip" not in values:
            values["clip_skip"] = min(12, max(1, self.options.CLIP_stop_at_last_layers))

    def read_second_pass(self, body: TextToImage) -> None:
        """The fields of `enable_hr`."""
        values = self.values
        size = values.get("width", body.width), values.get("height", body.height)
        if body.firstphase_width or body.firstphase_height:
            first = body.firstphase_width or size[0], body.firstphase_height or size[1]
            values |= {"width": self._side("width", first[0]), "height": self._side("height", first[1])}
            factor = max(size[0] / first[0], size[1] / first[1])
        elif body.hr_resize_x or body.hr_resize_y:
            factor = max(body.hr_resize_x / size[0], body.hr_resize_y / size[1])
            if body.hr_resize_x and body.hr_resize_y and body.hr_resize_x * size[1] != body.hr_resize_y * size[0]:
                self.notes.add("the second pass keeps the proportions of the first")
        else:
            factor = body.hr_scale
        values["second_pass"] = self._within("hr_scale", "second_pass", factor)
        values["second_pass_strength"] = self._within("denoising_strength", "second_pass_strength", body.denoising_strength)
        if body.hr_second_pass_steps > 0:
            values["second_pass_steps"] = self._clamped("hr_second_pass_steps", "second_pass_steps")
        values["second_pass_upscaler"] = self._upscaler(body.hr_upscaler)

    def read_begin(self, body: ImageToImage) -> bool:
        """The picture, the mask and what is done with them; returns whether there is a mask."""
        if not body.init_images:
            raise UnknownNameError("init_images has no picture; send one as base64.")
        if len(body.init_images) > 1:
            self.notes.add("the first of init_images was used")
        image = from_base64(body.init_images[0], "the first of init_images")
        mask = from_base64(body.mask, "the mask") if body.mask.strip() else None
        values = self.values
        values["strength"] = self._take_clamped("denoising_strength", "strength")
        # Before the picture is resized in this process: a size beyond the limits would fill the memory.
        GenerationOptions.make(width=values.get("width"), height=values.get("height"))
        size: Size | None = (values["width"], values["height"]) if {"width", "height"} <= values.keys() else None
        is_alone = mask is not None and body.inpaint_full_res
        if mask is not None:
            blurs = [getattr(body, name) for name in ("mask_blur_x", "mask_blur_y") if name in self.sent]
            if blurs:
                values["mask_blur"] = self._within("mask_blur_x", "mask_blur", max(blurs))
            elif "mask_blur" in self.sent:
                values["mask_blur"] = self._clamped("mask_blur", "mask_blur")
            values["mask_invert"] = body.inpainting_mask_invert
            values["inpaint_area"] = "masked" if is_alone else "whole"
            values["inpaint_padding"] = self._clamped("inpaint_full_res_padding", "inpaint_padding")
            number = min(len(FILLS) - 1, max(0, body.inpainting_fill))
            if number != body.inpainting_fill:
                self.notes.add(f"inpainting_fill is {number}, as it may be 0 to {len(FILLS) - 1}")
            values["inpaint_fill"] = FILLS[number]
        if body.resize_mode == len(FITS):
            self.notes.add("the picture was resized itself, not its latents")
        fit = FITS[body.resize_mode] if 0 <= body.resize_mode < len(FITS) else FITS[0]
        begun = begin(image, mask, None if is_alone else size, fit, self.limits)
        if mask is not None and not is_alone:  # the picture has the size already
            values.pop("width", None)
            values.pop("height", None)
        self.begin["image"] = self._input(begun.image)
        if begun.mask is not None:
            self.begin["mask"] = self._input(begun.mask)
        return begun.mask is not None

    def finish(self, task: Any) -> Translated:
        """The whole job."""
        options = self.options
        checkpoint = self.known.checkpoint(options.sd_model_checkpoint)
        generation, vae = GenerationOptions.make(**self.values), self.known.vae(options.sd_vae)
        scripts, image = self.body.alwayson_scripts, self.begin.get("image")
        controls, pictures = control_units(scripts, image, self.known.controlnets, self.limits, self.notes)
        request = GenerationRequest(
            task=task,
            options=generation,
            saving=options.saving(),
            checkpoint=checkpoint.name if options.sd_model_checkpoint else None,
            vae=vae,
            controls=controls,
            **self.begin,
        )
        is_grid_asked = self.body.save_images and not self.body.do_not_save_grid and options.return_grid
        return Translated(request, self.inputs | pictures, tuple(self.notes), checkpoint, is_grid_asked)

    # Parts of it.

    def _take(self, sent: str, name: str) -> None:
        """What was sent counts more than what an infotext says."""
        if sent in self.sent or name not in self.values:
            self.values[name] = getattr(self.body, sent)

    def _clamped(self, sent: str, name: str) -> Any:
        return self._within(sent, name, getattr(self.body, sent))

    def _take_clamped(self, sent: str, name: str) -> Any:
        return self.values[name] if sent not in self.sent and name in self.values else self._clamped(sent, name)

    def _within(self, sent: str, name: str, value: float) -> Any:
        return within(GenerationOptions, name, value, sent, self.notes)

    def _styles(self) -> tuple[str, ...]:
        names = [name for name in self.body.styles if name.strip().lower() not in NO_SCRIPT]
        known = tuple(name for name in names if name in self.known.styles)
        if len(known) < len(names):
            self.notes.add("unknown styles were left out")
        return known

    def _seed(self, seed: int) -> int:
        if -1 <= seed <= MAX_SEED:
            return seed
        self.notes.add("seeds are taken modulo 2^32")
        return seed % (MAX_SEED + 1)

    def _side(self, name: str, side: int) -> int:
        """The nearest multiple of 8; one outside the limits is refused by the options."""
        nearest = max(8, round(side / 8) * 8)
        if nearest != side:
            self.notes.add(f"{name} is {nearest}, in steps of 8")
        return nearest

    def _read_sampler(self) -> None:
        body = self.body
        name, schedule = body.sampler_name or body.sampler_index, body.scheduler
        if name:
            if similar := SIMILAR_SAMPLERS.get(name.strip().lower()):
                self.notes.add(f"{similar} is used in place of a sampler that is not here")
                name = similar
            try:
                sampler, from_name = parse_sampler(name)
            except OptionError as error:
                raise UnknownNameError(str(error)) from None
            self.values |= {"sampler": sampler.name, "schedule": from_name}
        if schedule and (not name or self.values["schedule"] == AUTOMATIC):
            self.values["schedule"] = self._schedule(schedule)

    def _schedule(self, name: str) -> str:
        words = name.strip().lower().replace("_", " ")
        found = next((known for known in SCHEDULES if known.lower() == words), None)
        if found is None:
            found = SIMILAR_SCHEDULES.get(words, AUTOMATIC)
            self.notes.add(f"the schedule {found} is used in place of one that is not here")
        return found

    def _upscaler(self, name: str) -> str:
        words = name.strip().lower()
        if words.startswith("latent"):
            return "latent"
        if words in ("lanczos", "nearest", "none"):
            if words != "lanczos":
                self.notes.add("Lanczos enlarges before the second pass")
            return "Lanczos"
        if words not in ("", "seesr"):
            self.notes.add("SeeSR enlarges before the second pass")
        return "SeeSR"

    def _input(self, content: bytes) -> str:
        name = content_hash(content)
        self.inputs[name] = content
        return name
