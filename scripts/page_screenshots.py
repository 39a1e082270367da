"""Makes screenshots of the studio's page: each tab, on a desktop and on a phone, light and dark.

    python -m scripts.page_screenshots FOLDER
    python -m scripts.page_screenshots FOLDER --address http://127.0.0.1:7860

Without `--address` a studio of the embedded models is started on a folder of its own, and works through a browser as a user
does before the pictures are taken; with it, the tabs show what was made there before, and the studio has no users. `--webp`
writes WebP of a quality that documentation needs, instead of PNG. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import io
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

SIZES: dict[str, ViewportSize] = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
DRAWN = 1500
"""Milliseconds until a tab is drawn."""
WAIT = 300_000
"""Milliseconds that the start of the studio, or a job, may take."""
PROMPTS = ("umbrella, flat", "cactus, flat", "strawberry, flat")
PHOTOS = Path(__file__).parents[1] / "tests" / "photos"
WEBP_QUALITY = 80


def main() -> None:
    """Writes `TAB-SIZE-SCHEME.png` into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--address", help="of a studio that runs")
    parser.add_argument("--webp", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if arguments.address:
            take(browser, arguments.address, arguments.folder, arguments.webp)
            return
        with tempfile.TemporaryDirectory() as data, running_studio(Path(data)) as address:
            fill(browser, address, Path(data))
            take(browser, address, arguments.folder, arguments.webp)


@contextmanager
def running_studio(data: Path) -> Iterator[str]:
    """The address of a studio on a data folder, until the end of the block."""
    command = [sys.executable, "-m", "seesr", "studio", "--port", "0", "--data", str(data), "--devices", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found.group()
                return
        raise SystemExit("the studio did not start.")
    finally:
        process.terminate()
        process.wait()


def fill(browser: Browser, address: str, folder: Path) -> None:
    """Works as a user does: makes pictures, paints over a part of one, enlarges photographs, and lets jobs wait."""
    page = open_page(browser, address, "desktop", "light")
    for prompt in PROMPTS:
        open_tab(page, "text")
        page.locator("#text-prompt textarea").fill(prompt)
        page.locator("#text-seed input").fill("7")
        submit(page, "text")
    page.locator("seesr-view[tab=text]").get_by_role("button", name="Inpaint").click()
    canvas = page.locator("seesr-drop[tab=inpaint] canvas")
    expect(canvas).to_be_visible(timeout=WAIT)
    page.wait_for_timeout(DRAWN)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box() or {"x": 0, "y": 0, "width": 0, "height": 0}
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.4, steps=8)
    page.mouse.up()
    page.locator("#inpaint-prompt textarea").fill("sunflower, flat")
    submit(page, "inpaint")
    page.locator("seesr-view[tab=inpaint]").get_by_role("button", name="Image to image").click()
    expect(page.locator("seesr-drop[tab=image] figure")).to_have_count(1, timeout=WAIT)
    page.locator("#image-prompt textarea").fill("carrot, 3d")
    submit(page, "image")
    open_tab(page, "upscale")
    old = folder / "old.png"  # small, and as hurt as an old photograph
    with Image.open(PHOTOS / "astronaut.png") as photo:
        buffer = io.BytesIO()
        photo.convert("RGB").resize((192, 192)).save(buffer, "JPEG", quality=40)
        Image.open(buffer).save(old)
    page.locator("seesr-drop[tab=upscale] input").set_input_files(old)
    page.locator("#upscale-scale input").fill("4")
    submit(page, "upscale")
    page.request.post(f"{address}/api/v1/queue/pause", data={"reason": "screenshots"}, headers={"origin": address})
    open_tab(page, "text")
    for prompt in ("butterfly, flat", "fox, 3d"):
        page.locator("#text-prompt textarea").fill(prompt)
        page.locator("#text-submit").click()
        page.wait_for_timeout(DRAWN)
    page.get_by_role("button", name="Do not show this again").click()
    page.context.close()


def submit(page: Page, tab: str) -> None:
    """Begins a tab's job and waits for its picture."""
    view = page.locator(f"seesr-view[tab={tab}]")
    image = view.locator("seesr-viewer:not([hidden]) img:not(.before)")
    before = image.get_attribute("src") if image.count() else None
    page.locator(f"#{tab}-submit").click()
    image.and_(page.locator(f'[src*="/pictures/"]:not([src="{before}"])')).wait_for(timeout=WAIT)


def open_tab(page: Page, tab: str) -> None:
    """Opens a tab by its name in `seesr.studio.page.blocks.TABS`."""
    page.locator(f"#tab-{tab}-button").click()
    page.locator(f"#{tab}-submit").wait_for()


def open_page(browser: Browser, address: str, size: str, scheme: Literal["light", "dark"]) -> Page:
    """The page in a browser of its own."""
    is_phone = size == "phone"
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, has_touch=is_phone, is_mobile=is_phone)
    page = context.new_page()
    page.goto(address, timeout=WAIT)
    page.locator("#upscale-submit").wait_for(timeout=WAIT)
    page.wait_for_function("window.seesr?.collect !== undefined")
    return page


def take(browser: Browser, address: str, folder: Path, is_webp: bool) -> None:
    """Takes a screenshot of each tab."""
    for size, scheme in itertools.product(SIZES, SCHEMES):
        page = open_page(browser, address, size, scheme)
        for tab in page.get_by_role("tab").and_(page.locator(":visible")).all():
            tab.click()
            page.wait_for_timeout(DRAWN)
            name = (tab.text_content() or "").strip().lower().replace(" ", "-")
            content = page.screenshot()
            path = folder / f"{name}-{size}-{scheme}"
            if is_webp:
                with Image.open(io.BytesIO(content)) as picture:
                    picture.save(path.with_suffix(".webp"), quality=WEBP_QUALITY, method=6)
            else:
                path.with_suffix(".png").write_bytes(content)
        page.context.close()


if __name__ == "__main__":
    main()
