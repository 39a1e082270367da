"""The tab Gallery: finished pictures, which the browser's script lists, shows and keeps up to date by events."""

from __future__ import annotations

from seesr.studio.page.context import Page, shell


def build(page: Page) -> None:
    """Draws the tab."""
    shell("gallery", "gallery", title=page.text("tab.gallery"))
