"""The studio's page in Chromium, for tests: browsers that note what should not happen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, ViewportSize
from studio_server import PASSWORD, ServedStudio

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
USERS = ("anna", "ben", "cleo")
"""Of the studio that several people share; anna is its admin."""
TABS_WITH_FIELDS = ("upscale", "text", "image", "inpaint", "extras")
WAIT = 60_000
"""Milliseconds that a picture may take on a slow machine."""


@dataclass
class Tab:
    """A page that is open in a browser, and what it did that it should not."""

    page: Page
    address: str
    faults: list[str] = field(default_factory=list)

    def open(self, name: str) -> Locator:
        """Opens a tab by its name; returns its panel."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        return self.page.get_by_role("tabpanel").and_(self.page.locator(":visible"))

    def tabs(self) -> list[str]:
        """Names of all tabs, in their order."""
        return [name.strip() for name in self.page.get_by_role("tab").and_(self.page.locator(":visible")).all_inner_texts()]

    def field(self, id: str) -> Locator:
        """The input of a field, such as `text-steps`."""
        return self.page.locator(f"#{id} :is(input, textarea)").first

    def wait_for_picture(self, tab: str, besides: str = "") -> str:
        """Waits for the tab's result, other than the picture `besides`; returns its id."""
        image = self.page.locator(f"seesr-view[tab={tab}] seesr-viewer:not([hidden]) img:not(.before)")
        image.and_(self.page.locator(f'[src*="/pictures/"]:not([src*="{besides or "none"}"])')).wait_for(timeout=WAIT)
        return (image.get_attribute("src") or "").split("/")[-2]


def open_page(browser: Browser, served: ServedStudio | str, size: ViewportSize = DESKTOP, **arguments: Any) -> Tab:
    """A new browser, without cookies, in which the page is open: of a studio, or at an address."""
    context: BrowserContext = browser.new_context(viewport=size, **arguments)
    tab = Tab(context.new_page(), served if isinstance(served, str) else served.address)

    def note_message(message: ConsoleMessage) -> None:
        if message.type == "error":
            tab.faults.append(f"console: {message.text}")

    def note_request(request: Request) -> None:
        if not request.url.startswith((tab.address, "data:", "blob:")):
            tab.faults.append(f"request: {request.url}")

    tab.page.on("console", note_message)
    tab.page.on("pageerror", lambda error: tab.faults.append(f"error: {error}"))
    tab.page.on("request", note_request)
    tab.page.goto(f"{tab.address}/")
    return tab


def ready(tab: Tab) -> Tab:
    """The page, once its script and its fields are there."""
    tab.page.locator("#upscale-submit").wait_for(state="attached", timeout=WAIT)  # hidden, if the address names another tab
    tab.page.wait_for_function("window.seesr?.collect !== undefined")
    tab.page.wait_for_timeout(500)
    return tab


def log_in(browser: Browser, served: ServedStudio, name: str, **arguments: Any) -> Tab:
    """A new browser in which the page is open for a user."""
    tab = open_page(browser, served, **arguments)
    tab.page.get_by_label("Name").fill(name)
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.keyboard.press("Enter")
    return ready(tab)
