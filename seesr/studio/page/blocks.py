"""The page of one language: the header, and the tabs in their order."""

from __future__ import annotations

import json

import gradio as gr

from seesr.studio.page import extras, gallery, image_to_image, inpaint, models, queue, settings, text_to_image, upscale
from seesr.studio.page.context import Page, shell
from seesr.studio.page.filling import add_filling
from seesr.studio.page.messages import Messages
from seesr.studio.studio import Studio

TABS = (
    ("upscale", upscale.build),
    ("text", text_to_image.build),
    ("image", image_to_image.build),
    ("inpaint", inpaint.build),
    ("extras", extras.build),
    ("gallery", gallery.build),
    ("queue", queue.build),
    ("models", models.build),
    ("settings", settings.build),
)
"""Name and builder of each tab; a tab's element has the id `tab-NAME`, which the script opens."""


def build_blocks(studio: Studio, words: Messages) -> gr.Blocks:
    """The page, for `gr.mount_gradio_app`."""
    page = Page(studio, words)
    with gr.Blocks(title="ButterVision", analytics_enabled=False, fill_width=True) as blocks:
        shell("header", "")
        shell("welcome", "")
        with gr.Tabs(elem_id="tabs"):
            for name, build in TABS:
                with gr.Tab(words(f"tab.{name}"), id=name, elem_id=f"tab-{name}", render_children=True):
                    build(page)
        add_filling(page)
        shell("footer", "", help=json.dumps(page.help))
        page.remember_on_load(blocks)
    return blocks
