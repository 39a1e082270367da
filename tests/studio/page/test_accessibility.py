"""What axe-core finds on each tab, on a desktop and on a phone, light and dark: nothing serious but what is Gradio's own.

axe-core is an npm package (Mozilla Public License 2.0), which is looked for as `system_programs.need_npm_package` says.
"""

from __future__ import annotations

import itertools
import re

import pytest
from job_requests import generation
from page_browser import DESKTOP, PHONE, Tab, log_in
from playwright.sync_api import Browser
from studio_server import ServedStudio
from system_programs import need_npm_package

from seesr.studio.records import User

pytestmark = pytest.mark.system

GRADIOS_OWN: dict[str, str] = {}
"""Why a finding counts as Gradio's own, by a pattern of `RULE SELECTOR`."""
RUN = """() => axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => violations
    .filter(({impact}) => ["serious", "critical"].includes(impact))
    .flatMap(({id, nodes}) => nodes.map(node => [id, node.target.join(" "),
        node.failureSummary.replaceAll("\\n", " ")].join(" "))))"""


def findings(tab: Tab) -> list[str]:
    """What is serious or critical and not Gradio's own."""
    found: list[str] = tab.page.evaluate(RUN)
    return [finding for finding in found if not any(re.match(pattern, finding) for pattern in GRADIOS_OWN)]


def test_axe_finds_nothing_serious_on_any_tab(browser: Browser, shared: ServedStudio) -> None:
    axe = (need_npm_package("axe-core") / "axe-core" / "axe.min.js").read_text()
    ben = User(name="ben")
    jobs = [shared.studio.submit(ben, generation(prompt)).id for prompt in ("an apple", "fail", "a boat")]
    for job in jobs:
        shared.studio.wait(ben, job, 30)
    shared.studio.set_setting(ben, "page.text", {"jobs": " ".join(jobs)})
    tab = log_in(browser, shared, "ben")
    tab.page.evaluate(axe)
    tab.page.add_style_tag(content="* { transition: none !important; }")  # colours on their way are none of either theme
    told = list[str]()
    for name in tab.tabs():
        tab.open(name)
        for size, scheme in itertools.product((DESKTOP, PHONE), ("light", "dark")):
            tab.page.set_viewport_size(size)
            tab.page.evaluate("isDark => document.body.classList.toggle('dark', isDark)", scheme == "dark")
            told += [f"{name}, {size['width']} px, {scheme}: {finding}" for finding in findings(tab)]
            wide = tab.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{name} is {wide} px wider than a screen of {size['width']} px"
    assert not told, "\n".join(told)
    assert tab.faults == []


def test_axe_finds_nothing_where_one_logs_in(browser: Browser, shared: ServedStudio) -> None:
    axe = (need_npm_package("axe-core") / "axe-core" / "axe.min.js").read_text()
    for scheme in ("light", "dark"):
        page = browser.new_context(viewport=PHONE, color_scheme=scheme).new_page()
        page.goto(f"{shared.address}/login")
        page.evaluate(axe)
        assert findings(Tab(page, shared.address)) == []
