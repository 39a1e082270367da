"""The tab Queue: the user's jobs in their order, which the browser's script draws and keeps up to date by events."""

from __future__ import annotations

from seesr.studio.page.context import Page, shell


def build(page: Page) -> None:
    """Draws the tab."""
    shell("queue", "queue", title=page.text("tab.queue"))
