"""The tab Settings: the user's own, and for admins users and limits; the browser's script draws it."""

from __future__ import annotations

import json

from seesr.options import SaveOptions
from seesr.studio.page.context import Page, shell
from seesr.studio.page.messages import Messages, languages


def build(page: Page) -> None:
    """Draws the tab."""
    names = {code: Messages.read(code)("language.name") for code in languages()}
    shell("preferences", "settings", languages=json.dumps(names), formats=" ".join(map(str, SaveOptions.choices("format"))))
