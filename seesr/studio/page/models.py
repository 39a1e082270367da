"""The tab Models: what is there, what more can be fetched, and how far that is; the browser's script draws it."""

from __future__ import annotations

from typing import get_args

from seesr.models.contents import Kind
from seesr.studio.page.context import Page, shell


def build(page: Page) -> None:
    """Draws the tab."""
    shell("models", "models", kinds=" ".join(get_args(Kind)))
