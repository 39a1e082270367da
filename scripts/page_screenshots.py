"""Makes screenshots of the studio's page: each tab, on a desktop and on a phone, light and dark.

    python -m scripts.page_screenshots http://127.0.0.1:7860 FOLDER

The studio runs, without users; what its tabs show is what was made on it before. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from pathlib import Path
from typing import Literal

from playwright.sync_api import ViewportSize, sync_playwright

SIZES: dict[str, ViewportSize] = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
DRAWN = 1000
"""Milliseconds until a tab is drawn."""


def main() -> None:
    """Writes `TAB-SIZE-SCHEME.png` into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for size, scheme in itertools.product(SIZES, SCHEMES):
            page = browser.new_context(viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone").new_page()
            page.goto(arguments.address)
            page.locator("#upscale-submit").wait_for()
            for tab in page.get_by_role("tab").all():
                tab.click()
                page.wait_for_timeout(DRAWN)
                name = (tab.text_content() or "").strip().lower().replace(" ", "-")
                page.screenshot(path=arguments.folder / f"{name}-{size}-{scheme}.png")
            page.context.close()


if __name__ == "__main__":
    main()
