"""The tab Upscale: pictures in, larger and sharper ones out."""

from __future__ import annotations

from typing import Any

import gradio as gr

from seesr.errors import InputError
from seesr.jobs import UpscaleRequest
from seesr.options import PRESETS, Options, SaveOptions
from seesr.studio.page.context import Page, shell
from seesr.studio.records import User

MAX_INPUTS = 200
"""Pictures that are asked for at once."""
ADVANCED = ("steps", "conditioning_scale", "clean", "edges", "color_fix", "sharpen", "kds", "tile", "vae_tile", "tile_tags")


def build(page: Page) -> None:
    """Draws the tab."""
    text, form = page.text, page.form("upscale")
    with gr.Row(elem_classes="seesr-work"):
        with gr.Column(scale=1, min_width=320, elem_classes="seesr-options"):
            shell("drop", "upscale", many=1, label=text("drop.many"))
            form.hidden("pictures")
            form.hidden("jobs")
            with gr.Row():
                form.option(Options, "scale", min_width=120)
                form.option(Options, "max_side", min_width=120)
            presets = [(text(f"preset.{name or 'none'}"), name) for name in ("", *PRESETS)]
            form.add("preset", gr.Dropdown(presets, value="", label=text("field.preset"), elem_id="upscale-preset"))
            form.option(Options, "prompt", lines=2, max_lines=6)
            form.option(Options, "tags")
            with gr.Accordion(text("word.advanced"), open=False):
                for name in ADVANCED:
                    form.option(Options, name)
                form.option(Options, "seed", placeholder=text("word.random"))
                form.option(SaveOptions, "format")
                reset = gr.Button(text("button.reset"), size="sm")
            with gr.Row(elem_classes="seesr-actions"):
                form.place_for_errors()
                submit = gr.Button(text("button.upscale"), variant="primary", elem_id="upscale-submit")
                shell("cancel", "upscale")
            form.connect(submit, lambda user, values: submit_upscales(page, user, values))
            form.add_reset(reset)
        with gr.Column(scale=2, min_width=360, elem_classes="seesr-result"):
            shell("view", "upscale", compare=1)


def submit_upscales(page: Page, user: User, values: dict[str, Any]) -> list[str]:
    """Puts a job for each picture into the queue, all or none.

    Raises:
        InputError: there is no picture, or too many.
        OptionError: a value is not valid.
        LimitError: as `Studio.submit`.
    """
    names = values["pictures"].split()
    if not names:
        raise InputError(page.text("error.no_picture"))
    if len(names) > MAX_INPUTS:
        raise InputError(page.text("error.many_pictures", count=len(names), limit=MAX_INPUTS))
    given = {name: values[name] for name in values if name in Options.model_fields and values[name] not in (None, "")}
    # What a preset decides is not taken from fields that were left as they are.
    options = Options.make(values["preset"] or None, **given)
    saving = SaveOptions.make(format=values["format"] or None)
    requests = [UpscaleRequest(task="upscale", options=options, saving=saving, image=name) for name in names]
    return page.submit_all(user, requests)
