"""The fields of the requests: name, default and meaning as AUTOMATIC1111 has them, and what SeeSR makes of each.

They are read laxly, as clients send them: null is as if the field was not sent, numbers may be texts or have fractions,
fields that nobody knows are dropped and not kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Support = Literal["honoured", "honoured with a note", "accepted and ignored"]
MAX_WHOLE, MAX_DIGITS = 2**64, 40
"""Of a whole number, as seeds have it, and of one that is written as a text."""
SUPPORT: tuple[Support, ...] = get_args(Support)


def _number(value: object) -> object:
    """A number that may be written as a text or a truth value."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError("give a number") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("give a finite number")
    return value


def _whole(value: object) -> object:
    """A number without its fraction; digits in a text stay exact."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        if len(value) > MAX_DIGITS:
            raise ValueError("give a smaller number")
        return _moderate(int(value))
    value = _number(value)
    return _moderate(int(value) if isinstance(value, float | bool) else value)


def _real(value: object) -> object:
    return _moderate(_number(value))


def _moderate(value: object) -> object:
    """A whole number with which can be reckoned in floating point."""
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        raise ValueError("give a smaller number")
    return value


def _flag(value: object) -> object:
    return bool(value) if isinstance(value, int | float) else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float) else value


def _texts(value: object) -> object:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def _mapping(value: object) -> object:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> object:
    return value if isinstance(value, list) else [value]


Whole = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_real)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[list[str], BeforeValidator(_texts)]
Values = Annotated[dict[str, Any], BeforeValidator(_mapping)]
Items = Annotated[list[Any], BeforeValidator(_list)]


def _field(support: Support, default: Any, meaning: str, names: AliasChoices | None = None) -> Any:
    extra: dict[str, Any] = {"support": support}
    if isinstance(default, list | dict):
        return Field(default_factory=type(default), description=meaning, json_schema_extra=extra, validation_alias=names)
    return Field(default=default, description=meaning, json_schema_extra=extra, validation_alias=names)


def honoured(default: Any, meaning: str, names: AliasChoices | None = None) -> Any:
    """A field that does what its name says; `names` are all that clients know it by, A1111's own first."""
    return _field("honoured", default, meaning, names)


def noted(default: Any, meaning: str) -> Any:
    """A field of which something is done otherwise, or not, as a note tells where it is used."""
    return _field("honoured with a note", default, meaning)


def ignored(default: Any, meaning: str = "") -> Any:
    """A field that changes nothing here."""
    return _field("accepted and ignored", default, meaning)


def not_done(default: Any) -> Any:
    """A field that asks for what is not done."""
    return ignored(default, "Not done, as a note tells where it is asked for.")


class Body(BaseModel):
    """Base of the requests. `model_fields_set` holds the fields that were sent and are not null."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: value for name, value in values.items() if value is not None}


class Generation(Body):
    """What txt2img and img2img have in common."""

    prompt: Text = honoured("", "The prompt, in A1111's syntax, with `<lora:name:1>`.")
    negative_prompt: Text = honoured("", "The negative prompt.")
    styles: Texts = noted([], "Names of `prompt-styles`; `None` and unknown ones are left out.")
    seed: Whole = noted(-1, "-1 draws one; others are taken modulo 2^32.")
    subseed: Whole = noted(-1, "Seed of the variation; as `seed`.")
    subseed_strength: Real = noted(0.0, "Share of the variation's noise, 0 to 1.")
    seed_resize_from_h: Whole = not_done(-1)
    seed_resize_from_w: Whole = not_done(-1)
    sampler_name: Text = noted(
        "", "One of `samplers`, or an alias; one of A1111's that is not there is replaced by a similar one."
    )
    scheduler: Text = noted("", "One of `schedulers`, by name or label; an unknown one is Automatic.")
    sampler_index: Text = noted("", "The old name of `sampler_name`.")
    batch_size: Whole = honoured(1, "Pictures that are made together, 1 to 16.")
    n_iter: Whole = honoured(1, "Batches, 1 to 100.")
    steps: Whole = noted(50, "Up to 150; where it is not sent, the checkpoint's own.")
    cfg_scale: Real = noted(7.0, "Guidance scale, up to 30; where it is not sent, the checkpoint's own.")
    width: Whole = noted(512, "In steps of 8; where it is not sent, the checkpoint's own, or that of the picture.")
    height: Whole = noted(512, "As `width`.")
    restore_faces: Flag = not_done(False)
    tiling: Flag = not_done(False)
    do_not_save_samples: Flag = ignored(False, "Finished pictures are kept in the gallery, from which they can be removed.")
    do_not_save_grid: Flag = honoured(False, "No grid among the pictures.")
    eta: Real = ignored(0.0)
    denoising_strength: Real = noted(0.75, "Of img2img, and of the second pass with `enable_hr`; 0 to 1.")
    s_min_uncond: Real = ignored(0.0)
    s_churn: Real = ignored(0.0)
    s_tmax: Real = ignored(0.0)
    s_tmin: Real = ignored(0.0)
    s_noise: Real = ignored(1.0)
    override_settings: Values = noted({}, "Options of `options` for this job alone; unknown ones are left out.")
    override_settings_restore_afterwards: Flag = ignored(True, "They never outlive their job.")
    refiner_checkpoint: Text = not_done("")
    refiner_switch_at: Real = ignored(0.0)
    disable_extra_networks: Flag = not_done(False)
    script_name: Text = honoured("", "There are no scripts: any but `None` is refused with 422, as an unknown one there.")
    script_args: Items = ignored([])
    send_images: Flag = honoured(True, "Whether the answer holds the pictures.")
    save_images: Flag = honoured(
        False, "Of several pictures the answer begins with a grid; all are kept in the gallery anyway."
    )
    alwayson_scripts: Values = noted({}, "`ControlNet` where there are ControlNets; others are left out.")
    force_task_id: Text = ignored("")
    infotext: Text = noted("", "Fills what was not sent, the checkpoint included.")


class TextToImage(Generation):
    """The request of txt2img."""

    enable_hr: Flag = honoured(False, "The second pass.")
    firstphase_width: Whole = honoured(0, "Width before the second pass; `width` is that after it then.")
    firstphase_height: Whole = honoured(0, "As `firstphase_width`.")
    hr_scale: Real = noted(2.0, "Factor of the second pass, 1 to 4.")
    hr_upscaler: Text = noted("", "`SeeSR`, `Lanczos` or `Latent`, which is the one that resembles it most; unnamed: SeeSR.")
    hr_second_pass_steps: Whole = noted(0, "0: as many as in the first.")
    hr_resize_x: Whole = noted(0, "Width after the second pass; proportions are kept.")
    hr_resize_y: Whole = noted(0, "Height after the second pass; proportions are kept.")
    hr_checkpoint_name: Text = not_done("")
    hr_sampler_name: Text = not_done("")
    hr_scheduler: Text = not_done("")
    hr_prompt: Text = not_done("")
    hr_negative_prompt: Text = not_done("")
    hr_cfg: Real = not_done(0.0)


class ImageToImage(Generation):
    """The request of img2img."""

    init_images: Texts = noted([], "The first one, as data URL or base64; addresses are refused.")
    mask: Text = honoured("", "White is painted anew; of a mask with transparency its alpha counts.")
    resize_mode: Whole = noted(0, "0 stretch, 1 crop, 2 fill; 3 (latent) is 0.")
    image_cfg_scale: Real = ignored(1.5, "Of InstructPix2Pix alone.")
    mask_blur: Real = noted(4.0, "Radius in pixels, up to 64.")
    mask_blur_x: Real = noted(4.0, "The larger of both counts as `mask_blur`.")
    mask_blur_y: Real = noted(4.0, "As `mask_blur_x`.")
    inpainting_fill: Whole = noted(0, "0 fill, 1 original, 2 latent noise, 3 latent nothing.")
    inpaint_full_res: Flag = honoured(True, "Work on what is masked alone, at the full size.")
    inpaint_full_res_padding: Whole = noted(0, "Pixels around it, up to 512.")
    inpainting_mask_invert: Flag = honoured(False, "Paint anew what is black.")
    initial_noise_multiplier: Real = not_done(1.0)
    include_init_images: Flag = honoured(False, "Echo the pictures among `parameters`.")


class Extras(Body):
    """What both requests for upscaling have in common."""

    resize_mode: Whole = honoured(0, "0: by `upscaling_resize`; 1: to width and height.")
    show_extras_results: Flag = ignored(True)
    gfpgan_visibility: Real = not_done(0.0)
    codeformer_visibility: Real = not_done(0.0)
    codeformer_weight: Real = ignored(0.0)
    upscaling_resize: Real = noted(2.0, "Factor, up to 8.")
    upscaling_resize_w: Whole = noted(512, "Width.")
    upscaling_resize_h: Whole = noted(512, "Height.")
    upscaling_crop: Flag = honoured(True, "Crop to exactly this size.")
    upscaler_1: Text = noted("None", "`None`, `Lanczos`, `Nearest`, `SeeSR`; any other is SeeSR.")
    upscaler_2: Text = not_done("None")
    extras_upscaler_2_visibility: Real = ignored(0.0)
    upscale_first: Flag = ignored(False)


class ExtrasSingle(Extras):
    """The request of extra-single-image."""

    image: Text = honoured("", "Data URL or base64.")


class FileData(Body):
    """A picture of a batch."""

    data: Text = honoured("", "Data URL or base64; some clients say `image`.", AliasChoices("data", "image"))
    name: Text = ignored("")


class ExtrasBatch(Extras):
    """The request of extra-batch-images."""

    imageList: list[FileData] = honoured(  # noqa: N815
        [],
        "`data` and `name` of each; answered in this order. Some clients say `image_list`.",
        AliasChoices("imageList", "image_list"),
    )


class PngInfo(Body):
    """The request of png-info."""

    image: Text = honoured("", "Data URL or base64.")


class Interrogate(Body):
    """The request of interrogate."""

    image: Text = honoured("", "Data URL or base64.")
    model: Text = ignored("clip", "RAM answers with its tags, whichever is asked for.")


class Detect(Body):
    """The request of controlnet/detect."""

    controlnet_module: Text = honoured("none", "`none` or `canny`.")
    controlnet_input_images: Texts = honoured([], "Data URLs or base64.")
    controlnet_images: Texts = honoured([], "The same, as some clients call it.")
    controlnet_processor_res: Whole = ignored(512)
    controlnet_threshold_a: Real = ignored(64.0)
    controlnet_threshold_b: Real = ignored(64.0)


REQUESTS: Mapping[str, type[Body]] = {
    "txt2img and img2img": Generation,
    "txt2img": TextToImage,
    "img2img": ImageToImage,
    "extra-single-image and extra-batch-images": Extras,
    "extra-single-image": ExtrasSingle,
    "extra-batch-images": ExtrasBatch,
    "png-info": PngInfo,
    "interrogate": Interrogate,
    "controlnet/detect": Detect,
}
"""By the endpoints that take them."""


def support_of(request: type[Body], name: str) -> Support:
    """What SeeSR makes of a field."""
    extra = request.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return next(support for support in SUPPORT if support == extra["support"])
