"""Models, Settings, everybody's queue, the first-run message: from click to what the server holds, as admin and user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from helpers import photograph
from hub import Hub
from job_requests import generation
from page_browser import PHONE, Tab, log_in, open_page, ready
from playwright.sync_api import Browser, Locator, expect
from safetensors.torch import save
from stand_in_worker import StandInWorker
from studio_server import PASSWORD, ServedStudio, serving

from seesr.models.contents import Kind
from seesr.options import SaveOptions
from seesr.studio.limits import OperatorLimits
from seesr.studio.page.messages import Messages, languages
from seesr.studio.records import Preferences, User
from seesr.weights.cache import Cache

pytestmark = pytest.mark.system
LORA = save({"lora_unet_x_attn2_to_k.lora_down.weight": torch.ones(4, 1024)})
NAMES = ("anna", "ben", "carl", "dora", "eve", "finn", "gus")
ANNA, BEN, CARL, DORA, EVE, FINN = (User(name=name, role="admin" if name == "anna" else "user") for name in NAMES[:6])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """A studio of anna, who is an admin, and others, with a LoRA."""
    data = tmp_path_factory.mktemp("settings")
    (loras := data / "models" / "loras").mkdir(parents=True)
    (loras / "ink.safetensors").write_bytes(LORA)
    with serving(data, *NAMES, worker=StandInWorker(0.1), page=True) as served:
        yield served
        served.app.state.pulls.close()


@pytest.fixture(autouse=True)
def _without_full_model(cache: Cache) -> Iterator[None]:
    """The cache is empty, and the machine may be slow."""
    del cache
    expect.set_options(timeout=30_000)
    yield
    expect.set_options(timeout=5_000)


def section(tab: Tab, name: str) -> Locator:
    return tab.page.locator("seesr-preferences").get_by_role("region", name=name, exact=True)


def test_words_that_the_scripts_put_together_are_there() -> None:
    words = Messages.read("en").words
    made = {"kind": [*get_args(Kind), "upscalers"], "limit": OperatorLimits.model_fields, "role": ["user", "admin"]}
    made |= {"theme": ["machine", "light", "dark"]}
    assert {f"js.{start}_{end}" for start, ends in made.items() for end in ends} <= words.keys()


def test_the_first_run_message_is_dismissed_for_good_and_models_tells_it_always(
    browser: Browser, served: ServedStudio
) -> None:
    tab = log_in(browser, served, "ben")
    note = tab.page.get_by_role("region", name="The small model that comes with SeeSR is in use.")
    expect(note).to_contain_text("pictograms of 70 things")
    note.get_by_text("The full model", exact=True).click()
    expect(note).to_contain_text("17.3 GB")
    expect(note.get_by_role("link")).to_have_attribute("href", "https://huggingface.co/stabilityai/sd-turbo")
    expect(note.locator("code")).to_have_text("seesr weights pull --accept-license")
    note.get_by_role("button", name="Do not show this again").click()
    expect(note).to_have_count(0)
    assert served.studio.preferences(BEN).welcomed
    assert not served.studio.preferences(ANNA).welcomed
    tab.page.reload()
    ready(tab)
    expect(note).to_have_count(0)
    tab.open("Models")
    expect(tab.page.locator("seesr-models .note")).to_contain_text("seesr weights pull")
    assert tab.faults == []


def test_an_admin_finds_fetches_and_removes_models(browser: Browser, served: ServedStudio, hub: Hub) -> None:
    hub.files = {"someone/water/water.safetensors": LORA, "someone/text/notes.txt": b"none"}
    hub.card = {"license": "openrail"}
    tab, manager = log_in(browser, served, "anna"), served.app.state.pulls.manager
    models = tab.open("Models").locator("seesr-models")
    expect(models.locator("[data-model=ink]")).to_contain_text("for SD 2")
    expect(models.get_by_role("list", name="Upscalers")).to_contain_text("tiny")
    models.get_by_label("Search").fill("nothing of this name")
    expect(models.locator("[data-model]")).to_have_count(0)
    models.get_by_label("Search").fill("lora INK")
    expect(models.locator("[data-model]")).to_have_count(1)
    models.get_by_label("Search").fill("")

    source = models.get_by_label("Name on the hub, or address")
    source.fill("no such model")
    source.press("Enter")
    expect(models.get_by_role("alert").filter(has_text="Unknown model 'no such model'; give owner/name")).to_be_visible()
    source.fill("https://example.org/x.safetensors")
    expect(models.get_by_label("SHA-256 of the file")).to_be_visible()
    source.fill("someone/water")
    expect(models.get_by_label("SHA-256 of the file")).to_be_hidden()
    source.press("Enter")
    fetch = models.locator(".plan").get_by_role("button", name="Fetch")
    expect(models.locator(".plan")).to_contain_text("openrail", timeout=30_000)
    expect(fetch).to_be_disabled()
    assert [model.name for model in manager.list_models("loras")] == ["ink"]
    models.get_by_label("I have read its licence and accept it.").check()
    fetch.click()
    expect(models.locator("[data-pull]")).to_contain_text("done, water is here", timeout=30_000)
    expect(models.locator("[data-model=water]")).to_contain_text("openrail", timeout=30_000)
    assert [model.name for model in manager.list_models("loras")] == ["ink", "water"]

    ink = models.locator("[data-model=ink]")
    ink.get_by_role("button", name="Remove").click()
    ink.get_by_role("button", name="Keep").click()
    ink.get_by_role("button", name="Remove").click()
    expect(ink).to_contain_text("Remove ink?")
    ink.get_by_role("button", name="Remove").click()
    expect(ink).to_have_count(0)
    assert [model.name for model in manager.list_models("loras")] == ["water"]
    served.studio.pause(ANNA, "for the test")
    served.studio.submit(BEN, generation("a cat <lora:water:1>"))
    water = models.locator("[data-model=water]")
    water.get_by_role("button", name="Remove").click()
    water.get_by_role("button", name="Remove").click()
    expect(models.get_by_role("alert").filter(has_text="Water is in use: 1 jobs")).to_be_visible()
    assert [model.name for model in manager.list_models("loras")] == ["water"]
    for job in served.studio.jobs(BEN, ["pending"]):
        served.studio.cancel(BEN, job.id)
    served.studio.resume(ANNA)
    assert re.findall(r"status of (\d+)", " ".join(tab.faults)) == ["400", "409"]
    assert len(tab.faults) == 2


def test_a_pull_that_failed_says_why_and_is_retried_and_one_that_lasts_is_cancelled(
    browser: Browser, served: ServedStudio, hub: Hub
) -> None:
    hub.files, hub.lie = {"someone/oil/oil.safetensors": LORA}, {"someone/oil/oil.safetensors"}
    served.app.state.pulls.manager.pause = 0.01
    tab = log_in(browser, served, "anna")
    models = tab.open("Models").locator("seesr-models")
    models.get_by_label("Name on the hub, or address").fill("someone/oil")
    models.get_by_role("button", name="Look up").click()
    models.locator(".plan").get_by_role("button", name="Fetch").click(timeout=30_000)
    failed = models.locator("[data-pull]").filter(has_text="oil")
    expect(failed.locator(".wrong")).to_contain_text("its digest is")
    hub.lie.clear()
    hub.length = {"someone/oil/oil.safetensors": len(LORA) + 10**6}  # so that it never ends by itself
    served.app.state.pulls.manager.pause = 60
    failed.get_by_role("button", name="Retry").click()
    again = models.locator("[data-pull]").filter(has_text="oil").first
    again.get_by_role("button", name="Cancel").click(timeout=30_000)
    expect(again).to_contain_text(re.compile("cancelled|ended after"), timeout=70_000)
    states = [pull.state for pull in served.app.state.pulls.pulls() if "oil" in pull.source]
    assert states in (["failed", "cancelled"], ["failed", "failed"])
    assert "oil" not in [model.name for model in served.app.state.pulls.manager.list_models()]
    assert tab.faults == []


def test_a_user_reads_models_and_has_own_settings_alone(browser: Browser, served: ServedStudio) -> None:
    (served.studio.files.root / "models" / "loras" / "ink.safetensors").write_bytes(LORA)
    tab = log_in(browser, served, "ben", size=PHONE, has_touch=True)
    models = tab.open("Models").locator("seesr-models")
    expect(models.locator("[data-model=ink]")).to_be_visible()
    expect(models.get_by_role("button", name="Remove")).to_have_count(0)
    expect(models.get_by_label("Name on the hub, or address")).to_be_hidden()
    tab.open("Settings")
    expect(section(tab, "API keys")).to_be_visible()
    expect(tab.page.locator("seesr-preferences h3")).to_have_text(
        ["Language and look", "Saving pictures", "Fields", "Password", "API keys"]
    )
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for button in tab.page.locator("seesr-preferences :is(button, select):visible").all():
        assert (button.bounding_box() or {"height": 0})["height"] >= 40
    assert tab.faults == []


def test_language_theme_and_defaults_are_kept_for_the_user(browser: Browser, served: ServedStudio, tmp_path: Path) -> None:
    tab = log_in(browser, served, "carl")
    page = tab.page
    tab.open("Settings")
    dark = "document.body.classList.contains('dark')"
    assert not page.evaluate(dark)
    section(tab, "Language and look").get_by_label("Theme").select_option("Dark")
    page.wait_for_function(dark)
    section(tab, "Saving pictures").get_by_label("Format").select_option("webp")
    expect(section(tab, "Saving pictures").get_by_role("status")).to_have_text("Kept.")
    with page.expect_response("**/me/preferences"):
        section(tab, "Saving pictures").get_by_label("Keep the input's metadata").uncheck()
    section(tab, "Language and look").get_by_label("Language").select_option("Italiano")
    page.wait_for_url(re.compile("/ui/it/"), timeout=60_000)
    expect(page.get_by_role("region", name="Lingua e aspetto")).to_be_visible(timeout=60_000)
    assert page.evaluate(dark)
    kept = served.studio.preferences(CARL)
    assert (kept.language, kept.theme, kept.saving) == ("it", "dark", SaveOptions(format="webp", metadata=False))
    assert served.studio.preferences(ANNA) == Preferences()

    photo = tmp_path / "cat.png"
    photograph("chelsea.png", (150, 80, 198, 120)).save(photo)
    page.locator("#tab-upscale-button").click()
    page.locator("seesr-drop[tab=upscale] input").set_input_files(photo)
    expect(page.locator("seesr-drop[tab=upscale] figure")).to_have_count(1)
    page.locator("#upscale-submit").click()
    tab.wait_for_picture("upscale")
    request: Any = served.studio.jobs(CARL)[0].request
    assert request.saving == SaveOptions(format="webp", metadata=False)
    assert tab.faults == []


def test_all_remembered_fields_are_reset(browser: Browser, served: ServedStudio) -> None:
    served.studio.set_setting(DORA, "page.text", {"prompt": "mine"})
    served.studio.set_setting(ANNA, "page.text", {"prompt": "hers"})
    tab = log_in(browser, served, "dora")
    tab.open("Settings")
    fields = section(tab, "Fields")
    fields.get_by_role("button", name="Reset all remembered fields").click()
    with tab.page.expect_navigation():
        fields.get_by_role("button", name="Reset all remembered fields").click()
    ready(tab)
    expect(section(tab, "Fields")).to_be_visible(timeout=60_000)
    tab.open("Text to image")
    expect(tab.field("text-prompt")).to_have_value("")
    assert served.studio.setting(DORA, "page.text") is None
    assert served.studio.setting(ANNA, "page.text") == {"prompt": "hers"}


def test_password_and_keys_are_ones_own(browser: Browser, served: ServedStudio) -> None:
    tab = log_in(browser, served, "eve")
    tab.open("Settings")
    keys = section(tab, "API keys")
    keys.get_by_label("What it is for").fill("phone")
    keys.get_by_role("button", name="Make a key").click()
    key = keys.locator(".fresh code")
    expect(key).to_contain_text("sk-")
    assert served.accounts.by_key(key.text_content() or "") == EVE
    keys.get_by_role("listitem").get_by_role("button", name="Remove").click()
    keys.get_by_role("listitem").get_by_role("button", name="Remove").click()
    expect(keys.get_by_role("listitem")).to_have_count(0)
    assert served.accounts.keys("eve") == []
    password = section(tab, "Password")
    for again, told in {"other words": "The two passwords differ; write the same twice.", "short": None}.items():
        password.get_by_label("New password").fill("short")
        password.get_by_label("The same again").fill(again)
        password.get_by_role("button", name="Set the password").click()
        expect(password.get_by_role("alert")).to_have_text(told or re.compile("^The password has 5 characters; it needs 8"))
    for label in ("New password", "The same again"):
        password.get_by_label(label).fill("a better one")
    password.get_by_role("button", name="Set the password").click()
    expect(tab.page).to_have_url(f"{served.address}/login", timeout=30_000)
    assert served.accounts.by_password("eve", "a better one", "10.0.0.1") == EVE
    assert served.accounts.by_password("eve", PASSWORD, "10.0.0.1") is None


def test_an_admin_adds_changes_disables_and_removes_users(browser: Browser, served: ServedStudio) -> None:
    tab = log_in(browser, served, "anna")
    tab.open("Settings")
    users = section(tab, "Users")
    expect(users.get_by_role("listitem")).to_have_count(len(NAMES))
    users.get_by_label("User name").fill("hal")
    users.get_by_label("Password of the user").fill("hal's password")
    users.get_by_label("Role", exact=True).select_option("Admin")
    users.get_by_role("button", name="Add the user").click()
    expect(users.get_by_role("status")).to_have_text("hal may log in.")
    assert User(name="hal", role="admin") in served.accounts.users()
    users.get_by_label("Role of hal").select_option("User")
    finn = users.locator("[data-user=finn]")
    finn.get_by_role("button", name="Disable").click()
    expect(finn.get_by_role("button", name="Enable")).to_be_visible()
    assert served.accounts.by_password("finn", PASSWORD, "10.0.0.1") is None
    assert {"hal": "user"}.items() <= {user.name: user.role for user in served.accounts.users()}.items()
    finn.get_by_role("button", name="Enable").click()
    expect(finn.get_by_role("button", name="Disable")).to_be_visible()
    finn.get_by_role("button", name="New password").click()
    finn.get_by_label("New password of finn").fill("finn's second")
    finn.get_by_role("button", name="Set the password").click()
    expect(users.get_by_role("status")).to_have_text("finn has a new password.")
    assert served.accounts.by_password("finn", "finn's second", "10.0.0.1") == FINN
    gus = users.locator("[data-user=gus]")
    gus.get_by_role("button", name="Remove").click()
    expect(gus).to_contain_text("Remove gus with all jobs and pictures?")
    gus.get_by_role("button", name="Remove").click()
    expect(gus).to_have_count(0)
    assert "gus" not in [user.name for user in served.accounts.users()]
    expect(section(tab, "Limits").locator("dd").nth(4)).to_have_text("64,000,000")
    assert tab.faults == []


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[ServedStudio]:
    """Another studio, without jobs."""
    with serving(tmp_path / "queue", "anna", "ben", "carl", worker=StandInWorker(0.1), page=True) as served:
        yield served


def test_admins_see_and_order_all_jobs_and_users_their_own(browser: Browser, queue: ServedStudio) -> None:
    queue.studio.pause(ANNA, "the test pauses it")
    theirs = [queue.studio.submit(BEN, generation(name)).id for name in ("apple", "boat", "cup")]
    queue.studio.submit(CARL, generation("dog"))
    anna, carl = log_in(browser, queue, "anna"), log_in(browser, queue, "carl")
    carl.open("Queue")
    expect(carl.page.locator("seesr-queue li")).to_have_count(1)
    expect(carl.page.get_by_label("Jobs of")).to_have_count(0)
    anna.open("Queue")
    rows = anna.page.locator("seesr-queue li")
    expect(rows).to_have_count(4)
    cup, apple = rows.filter(has_text="cup"), rows.filter(has_text="apple")
    cup.get_by_role("button", name="Earlier").press("Enter")

    def order() -> list[str]:
        waiting = queue.studio.jobs(ANNA, ["pending"], of="ben")
        return [getattr(job.request.options, "prompt", "") for job in sorted(waiting, key=lambda job: job.ahead or 0)]

    def expect_order(*names: str) -> None:
        expect(rows.filter(has_text="ben · ").locator("strong")).to_have_text([*names])
        assert order() == [*names]

    expect_order("apple", "cup", "boat")
    expect(cup.get_by_role("button", name="Earlier")).to_be_focused()
    anna.page.keyboard.press("Alt+ArrowDown")
    expect_order("apple", "boat", "cup")
    cup.drag_to(apple)
    expect_order("cup", "apple", "boat")
    apple.get_by_role("button", name="Cancel").click()
    expect(rows.filter(has_text="ben · cancelled")).to_contain_text("apple")
    assert queue.studio.job(ANNA, theirs[0]).state == "cancelled"
    apple.get_by_role("button", name="Retry").click()
    expect(rows).to_have_count(5)
    assert len(queue.studio.jobs(BEN)) == 4
    anna.page.get_by_role("button", name="Resume the queue").click()
    expect(rows.filter(has_text="done")).to_have_count(4, timeout=60_000)
    anna.page.get_by_label("Jobs of").select_option("Only me")
    expect(rows).to_have_count(1)
    expect(rows).to_have_text("None of your jobs is here yet.")
    expect(carl.page.locator("seesr-queue li")).to_contain_text("done", timeout=30_000)
    assert anna.faults == []
    assert carl.faults == []


def test_without_users_the_first_one_is_added_and_then_logs_in(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, page=True) as served:
        tab = ready(open_page(browser, served))
        tab.open("Settings")
        expect(section(tab, "Users")).to_contain_text("everybody at this machine is an admin")
        expect(section(tab, "Password")).to_have_count(0)
        section(tab, "Users").get_by_label("User name").fill("anna")
        section(tab, "Users").get_by_label("Password of the user").fill(PASSWORD)
        section(tab, "Users").get_by_role("button", name="Add the user").click()
        expect(tab.page).to_have_url(f"{served.address}/login", timeout=30_000)
        assert served.accounts.users() == [ANNA]


def test_each_language_has_a_name_of_its_own() -> None:
    assert len({Messages.read(code)("language.name") for code in languages()}) == len(languages())
