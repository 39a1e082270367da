"""The fields of the tabs that make pictures, and the job that their values are."""

from __future__ import annotations

from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from seesr.errors import OptionError
from seesr.files import data_folder
from seesr.generation.controls import MAX_CONTROLS
from seesr.generation.options import GenerationOptions
from seesr.generation.samplers import SAMPLERS, SCHEDULES
from seesr.generation.styles import read_styles
from seesr.jobs import NEEDED, GenerationRequest, GenerationTask, parse_request
from seesr.options import SaveOptions
from seesr.studio.page.context import HIDDEN, FieldError, Form, Page, shell
from seesr.studio.page.plot import add_plot
from seesr.studio.records import User

RATIOS = ("1:1", "3:2", "2:3", "16:9")
ADVANCED = (
    "variation_seed",
    "variation_strength",
    "clip_skip",
    "second_pass",
    "second_pass_upscaler",
    "second_pass_strength",
    "upscale",
)
INPAINTING = ("inpaint_fill", "inpaint_area", "inpaint_padding", "mask_blur")
SIDES = ("left", "top", "right", "bottom")
_UNITS = TypeAdapter(list[dict[str, Any]])


def build_generation(page: Page, tab: str, task: GenerationTask) -> None:
    """Draws a tab that makes pictures."""
    text, form = page.text, page.form(tab)
    with gr.Row(elem_classes="seesr-work"):
        with gr.Column(scale=1, min_width=320, elem_classes="seesr-options"):
            form.hidden("jobs")
            if "image" in NEEDED[task]:
                form.hidden("pictures")
                shell("drop", tab, label=text("drop.one"), mask=int("mask" in NEEDED[task]), field=f"{tab}-pictures")
            shell("tokens", tab, field="prompt")
            example = text("word.example_inpaint" if "mask" in NEEDED[task] else "word.example")
            form.option(GenerationOptions, "prompt", lines=3, max_lines=8, placeholder=example)
            form.tell("prompt")
            shell("cards", tab)
            form.option(GenerationOptions, "negative_prompt", lines=1, max_lines=4)
            if "image" in NEEDED[task]:
                form.option(GenerationOptions, "strength")
            if "mask" in NEEDED[task]:
                form.hidden("mask")
                _add_inpainting(page, form)
            if styles := [*read_styles(data_folder() / "styles.csv")]:
                form.option(GenerationOptions, "styles", choices=styles, value=[], multiselect=True)
            form.hidden("checkpoint")
            form.hidden("vae")
            shell("choices", tab)
            if task == "text to image":
                _add_size(page, form)
            with gr.Row():
                form.option(GenerationOptions, "steps", min_width=100)
                form.option(GenerationOptions, "guidance_scale", min_width=100)
            _add_seed(page, form)
            shell("settings", tab, **({} if NEEDED[task] else {"choose": 1}))
            form.hidden("controls")
            shell("controls", tab, most=MAX_CONTROLS, field=f"{tab}-controls")
            with gr.Accordion(text("word.advanced"), open=False):
                _add_advanced(form)
                reset = gr.Button(text("button.reset"), size="sm")
            connect_plot = None if "mask" in NEEDED[task] else add_plot(page, form, "image" in NEEDED[task])
            with gr.Row(elem_classes="seesr-actions"):
                form.place_for_errors()
                submit = gr.Button(text("button.generate"), variant="primary", elem_id=f"{tab}-submit")
                shell("cancel", tab)
            form.connect(submit, lambda user, values: [submit_generation(page, user, task, values)])
            form.add_reset(reset)
            if connect_plot is not None:
                connect_plot(lambda values: generation_request(page, task, values))
        with gr.Column(scale=2, min_width=360, elem_classes="seesr-result"):
            shell("view", tab)
            if connect_plot is not None:
                shell("sheet", tab)


def _add_inpainting(page: Page, form: Form) -> None:
    with gr.Accordion(page.text("word.mask"), open=False):
        form.option(GenerationOptions, "mask_invert")
        for name in INPAINTING:
            form.option(GenerationOptions, name)
    with gr.Accordion(page.text("word.outpaint"), open=False), gr.Row():
        for side in SIDES:
            label, name = page.text(f"field.{side}"), f"outpaint_{side}"
            shown: dict[str, Any] = {"minimum": 0, "maximum": 1024, "precision": 0, "min_width": 80}
            form.add(name, gr.Number(0, label=label, elem_id=f"{form.tab}-{name}", **shown))


def _add_size(page: Page, form: Form) -> None:
    with gr.Row():
        width = form.option(GenerationOptions, "width", step=8, min_width=100)
        height = form.option(GenerationOptions, "height", step=8, min_width=100)
    with gr.Row(elem_classes="seesr-chips"):
        sides: list[Any] = [width, height]
        for ratio in RATIOS:
            across, down = ratio.split(":")
            button = gr.Button(ratio, size="sm", min_width=40)
            js = f"(width, height) => seesr.ratio('{form.tab}', width, height, {across}, {down})"
            button.click(None, sides, sides, js=js, **HIDDEN)
        swap = gr.Button("⇄", size="sm", min_width=40, elem_id=f"{form.tab}-swap")
        swap.click(None, sides, sides, js="(width, height) => [height, width]", **HIDDEN)


def _add_seed(page: Page, form: Form) -> None:
    with gr.Row(elem_classes="seesr-seed"):
        seed = form.option(GenerationOptions, "seed", placeholder=page.text("word.random"), scale=3, min_width=120)
        dice = gr.Button(page.text("button.random"), size="sm", min_width=72, scale=0, elem_id=f"{form.tab}-dice")
        recycle = gr.Button(page.text("button.last"), size="sm", min_width=72, scale=0, elem_id=f"{form.tab}-recycle")
    dice.click(None, None, seed, js="() => null", **HIDDEN)
    recycle.click(None, seed, seed, js=f"seed => seesr.lastSeed('{form.tab}') ?? seed", **HIDDEN)


def _add_advanced(form: Form) -> None:
    with gr.Row():
        form.option(GenerationOptions, "sampler", choices=[sampler.name for sampler in SAMPLERS], min_width=140)
        form.option(GenerationOptions, "schedule", choices=[*SCHEDULES], min_width=140)
    with gr.Row():
        form.option(GenerationOptions, "batch_size", min_width=100)
        form.option(GenerationOptions, "batch_count", min_width=100)
    for name in ADVANCED:
        form.option(GenerationOptions, name)
    form.option(SaveOptions, "format")


def submit_generation(page: Page, user: User, task: GenerationTask, values: dict[str, Any]) -> str:
    """Puts the job that the fields ask for into the queue; returns its id.

    Raises:
        InputError, OptionError: as `generation_request`.
        LimitError: as `Studio.submit`.
    """
    return page.submit(user, generation_request(page, task, values)).id


def generation_request(page: Page, task: GenerationTask, values: dict[str, Any]) -> GenerationRequest:
    """The job that the fields ask for.

    Raises:
        InputError: a picture or a ControlNet is missing.
        OptionError: a value is not valid.
    """
    given = {name: value for name, value in values.items() if name in GenerationOptions.model_fields and value != ""}
    sides = tuple(values.get(f"outpaint_{side}") or 0 for side in SIDES)
    options = GenerationOptions.make(**given, outpaint=sides if any(sides) else None)
    if "image" in NEEDED[task] and not values.get("pictures"):
        raise FieldError("pictures", page.text("error.no_picture"))
    if task == "inpainting" and not values.get("mask"):
        if not any(sides):
            raise FieldError("pictures", page.text("error.no_mask"))
        task = "image to image"  # what is added outside needs no mask
    request = {
        "task": task,
        "options": options,
        "saving": SaveOptions.make(format=values.get("format") or None),
        "checkpoint": values.get("checkpoint") or None,
        "vae": values.get("vae") or None,
        "image": values.get("pictures") or None,
        "mask": values.get("mask") or None,
        "controls": _control_units(page, values.get("controls") or "[]"),
    }
    parsed = parse_request(request)
    assert isinstance(parsed, GenerationRequest)
    return parsed


def _control_units(page: Page, text: str) -> list[dict[str, Any]]:
    """The units of ControlNet that are used, from their JSON; those that were left empty are none."""
    try:
        units = [unit for unit in _UNITS.validate_json(text) if unit.get("name") or unit.get("image")]
    except ValidationError:
        raise OptionError("controls is not readable; press Reset all fields.") from None
    for number, unit in enumerate(units, 1):
        for key in ("name", "image"):
            if not unit.get(key):
                raise FieldError("controls", page.text(f"error.no_control_{key}", number=number))
    return units
