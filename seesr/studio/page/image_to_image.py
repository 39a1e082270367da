"""The tab Image to image."""

from __future__ import annotations

from seesr.studio.page.context import Page
from seesr.studio.page.generation import build_generation


def build(page: Page) -> None:
    """Draws the tab."""
    build_generation(page, "image", "image to image")
