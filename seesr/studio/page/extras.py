"""The tab Extras: what a picture's file says of how it was made, its tags, and the way to the other tabs."""

from __future__ import annotations

import gradio as gr

from seesr.studio.page.context import Page, shell


def build(page: Page) -> None:
    """Draws the tab."""
    form = page.form("extras")
    with gr.Row(elem_classes="seesr-work"):
        with gr.Column(scale=1, min_width=320, elem_classes="seesr-options"):
            shell("drop", "extras", label=page.text("drop.one"))
            form.hidden("pictures")
            form.hidden("jobs")
            form.keep_changes()
            shell("extras-tools", "extras")
        with gr.Column(scale=2, min_width=360, elem_classes="seesr-result"):
            shell("extras", "extras")
