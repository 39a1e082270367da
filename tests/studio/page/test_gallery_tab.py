"""The tab Gallery in a real browser: finding, keeping, collecting, removing with undo, sending on, downloading."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from job_requests import generation
from page_browser import PHONE, TABS_WITH_FIELDS, Tab, open_page, ready
from picture_records import add_picture
from playwright.sync_api import Browser, Locator, expect
from stand_in_worker import StandInWorker
from studio_server import ServedStudio, serving

from seesr.jobs import GenerationRequest, content_hash
from seesr.studio.records import LOCAL, PictureSearch, User

pytestmark = pytest.mark.system
ME = User(name=LOCAL, role="admin")
COLOURS = ("red", "green", "blue", "white")
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    with serving(tmp_path_factory.mktemp("gallery"), worker=StandInWorker(), page=True) as served:
        yield served


@pytest.fixture
def served(studio: ServedStudio) -> ServedStudio:
    """A studio without any picture or board, and with fields as a new user finds them."""
    for tab in TABS_WITH_FIELDS:
        studio.studio.set_setting(ME, f"page.{tab}", None)
    studio.studio.prune(ME, datetime.now(UTC), keep_pictures=False)
    studio.studio.trash(ME, ids(studio))
    studio.studio.empty_trash(ME)
    for board in studio.studio.boards(ME):
        studio.studio.remove_board(ME, board.id)
    return studio


@pytest.fixture
def pictures(served: ServedStudio) -> list[str]:
    """Ids of four pictures, each a minute newer than the one before."""
    return add_pictures(served, [f"a {colour} boat" for colour in COLOURS])


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    expect.set_options(timeout=30_000)
    yield
    expect.set_options(timeout=5_000)


def add_pictures(served: ServedStudio, prompts: list[str], **settings: Any) -> list[str]:
    def add(index: int, prompt: str) -> str:
        values = {"prompt": prompt, "seed": index, "steps": 2, "task": "text to image"} | settings
        when = NOON + timedelta(minutes=index)
        return add_picture(served.studio, LOCAL, COLOURS[index % 4], created=when, settings=values)[0].id

    return [add(index, prompt) for index, prompt in enumerate(prompts)]


def open_gallery(browser: Browser, served: ServedStudio, **arguments: Any) -> tuple[Tab, Locator]:
    tab = ready(open_page(browser, served, **arguments))
    tab.open("Gallery")
    return tab, tab.page.locator("seesr-gallery")


def shown(gallery: Locator) -> list[str | None]:
    return [tile.get_attribute("data-picture") for tile in gallery.locator(".grid li").all()]


def file_of(served: ServedStudio, picture: str) -> str:
    return f"{served.address}/api/v1/pictures/{picture}/file"


def small_targets(tab: Tab) -> list[str]:
    """What can be touched, and is lower than 40 pixels."""
    targets = "[...document.querySelectorAll('seesr-gallery :is(button, a, .check)')]"
    return tab.page.evaluate(f"{targets}.filter(one => one.offsetParent && one.offsetHeight < 40).map(one => one.outerHTML)")


def ids(served: ServedStudio, **search: Any) -> list[str]:
    return [picture.id for picture in served.studio.pictures(ME, count=200, search=PictureSearch.model_validate(search))]


def test_all_of_two_hundred_pictures_come_while_one_scrolls_and_keep_their_place(
    browser: Browser, served: ServedStudio
) -> None:
    add_pictures(served, [f"number {index}" for index in range(200)])
    tab, gallery = open_gallery(browser, served)
    tiles = gallery.locator(".grid li")
    expect(tiles.first).to_be_visible()
    assert tiles.count() < 200
    tiles.first.locator(".open").focus()
    while tiles.count() < 200:
        before = tiles.count()
        tab.page.keyboard.press("End")
        expect(tiles.nth(before)).to_be_attached()
    assert shown(gallery) == ids(served)
    tab.page.keyboard.press("End")
    last = gallery.get_by_role("button", name="number 0", exact=True)
    expect(last).to_be_focused()
    expect(last).to_be_in_viewport()
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Escape")
    expect(last).to_be_focused()
    tab.page.get_by_role("button", name="Open the queue").click()
    expect(gallery).to_be_hidden()
    tab.open("Gallery")
    expect(last).to_be_in_viewport()
    assert tab.faults == []


def test_pictures_are_found_by_words_filters_and_stars(browser: Browser, served: ServedStudio, pictures: list[str]) -> None:
    (other,) = add_pictures(served, ["a house"], weights="other")
    served.studio.change_picture(ME, pictures[1], tags=["sea"])
    tab, gallery = open_gallery(browser, served)
    tiles = gallery.locator(".grid li")
    expect(tiles).to_have_count(5)
    gallery.get_by_label("Search in prompts").fill("boat BLUE")
    expect(tiles).to_have_count(1)
    assert shown(gallery) == [pictures[2]]
    gallery.get_by_label("Search in prompts").fill("aeroplane")
    expect(gallery.get_by_text("No picture fits.")).to_be_visible()
    gallery.get_by_role("button", name="Show all").click()
    expect(tiles).to_have_count(5)
    gallery.get_by_role("button", name="Filters").click()
    gallery.get_by_label("Tags").fill("Sea")
    gallery.get_by_label("Tags").press("Enter")
    expect(tiles).to_have_count(1)
    assert shown(gallery) == ids(served, tags=["sea"]) == [pictures[1]]
    gallery.get_by_label("Tags").fill("")
    gallery.get_by_label("Checkpoint").select_option("other")
    expect(tiles.and_(tab.page.locator(f"[data-picture='{other}']"))).to_have_count(1)
    expect(tiles).to_have_count(1)
    gallery.get_by_label("Checkpoint").select_option("")
    expect(tiles).to_have_count(5)
    tiles.filter(has=tab.page.get_by_label("a red boat")).get_by_role("button", name="Favourite").click()
    gallery.get_by_role("button", name="a green boat", exact=True).focus()
    tab.page.keyboard.press("f")
    gallery.get_by_role("button", name="★ Favourites").click()
    expect(tiles).to_have_count(2)
    assert shown(gallery) == ids(served, favourite=True) == [pictures[1], pictures[0]]
    assert tab.faults == []


def test_a_board_is_made_filled_renamed_opened_and_emptied(
    browser: Browser, served: ServedStudio, pictures: list[str]
) -> None:
    tab, gallery = open_gallery(browser, served)
    tiles, dialog = gallery.locator(".grid li"), tab.page.locator("dialog.question")
    gallery.get_by_role("button", name="a red boat", exact=True).click(modifiers=["ControlOrMeta"])
    gallery.get_by_role("button", name="a blue boat", exact=True).click(modifiers=["ControlOrMeta"])
    gallery.get_by_role("button", name="Add to a board").click()
    dialog.get_by_label("New board").fill("Lakes")
    dialog.get_by_role("button", name="OK").click()
    expect(gallery.get_by_role("status").filter(has_text="Lakes")).to_have_text("On the board Lakes now.")
    gallery.get_by_role("button", name="Lakes (2)").click()
    expect(tiles).to_have_count(2)
    gallery.get_by_role("button", name="Rename the board").click()
    dialog.get_by_label("Name of the board").fill("Sea")
    tab.page.keyboard.press("Enter")
    expect(gallery.get_by_role("button", name="Sea (2)")).to_have_attribute("aria-pressed", "true")
    (board,) = served.studio.boards(ME)
    assert (board.name, shown(gallery)) == ("Sea", ids(served, board=board.id))
    tiles.first.get_by_role("button").first.click()
    tab.page.locator("dialog.details").get_by_role("button", name="Take off the board: Sea").click()
    expect(tiles).to_have_count(1)
    assert ids(served, board=board.id) == [pictures[0]]
    tab.page.keyboard.press("Escape")
    gallery.get_by_role("button", name="New board").click()
    dialog.get_by_label("Name of the board").fill("Sea")
    tab.page.keyboard.press("Enter")
    expect(gallery.get_by_role("alert")).to_have_text("There is a board 'Sea' already; choose another name.")
    gallery.get_by_role("button", name="Remove the board").click()
    dialog.get_by_role("button", name="OK").click()
    expect(tiles).to_have_count(4)
    assert served.studio.boards(ME) == []
    assert [fault for fault in tab.faults if "409" not in fault] == []


def test_what_is_deleted_comes_back_at_its_place(browser: Browser, served: ServedStudio, pictures: list[str]) -> None:
    tab, gallery = open_gallery(browser, served)
    tiles, details = gallery.locator(".grid li"), tab.page.locator("dialog.details")
    gallery.get_by_role("button", name="a blue boat", exact=True).focus()
    tab.page.keyboard.press("Delete")
    expect(tiles).to_have_count(3)
    expect(gallery.get_by_role("status").filter(has_text="trash")).to_have_text("Moved to the trash: 1.")
    assert ids(served, trash=True) == [pictures[2]]
    gallery.get_by_role("button", name="Undo").click()
    expect(tiles).to_have_count(4)
    assert shown(gallery) == ids(served) == pictures[::-1]
    tiles.nth(1).locator(".open").click()
    tab.page.keyboard.press("Delete")
    expect(details.locator(".prompt")).to_have_text("a green boat")
    tab.page.keyboard.press("Delete")
    expect(details.locator(".prompt")).to_have_text("a red boat")
    details.get_by_role("button", name="Undo").click()
    expect(details.locator(".prompt")).to_have_text("a green boat")
    tab.page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    assert shown(gallery) == ids(served) == [pictures[3], pictures[1], pictures[0]]
    gallery.get_by_role("button", name="Trash", exact=True).click()
    expect(tiles).to_have_count(1)
    gallery.get_by_role("button", name="a blue boat", exact=True).focus()
    tab.page.keyboard.press("Space")
    gallery.get_by_role("button", name="Restore").click()
    expect(tiles).to_have_count(0)
    assert ids(served) == pictures[::-1]
    served.studio.trash(ME, pictures[:2])
    gallery.get_by_role("button", name="All", exact=True).click()
    gallery.get_by_role("button", name="Trash", exact=True).click()
    expect(tiles).to_have_count(2)
    # What is asked for once the trash is empty would not be found.
    tab.page.wait_for_function("[...document.querySelectorAll('.grid img')].every(image => image.complete)")
    gallery.get_by_role("button", name="Empty the trash").click()
    tab.page.locator("dialog.question").get_by_role("button", name="OK").click()
    expect(tiles).to_have_count(0)
    assert ids(served, trash=True) == []
    assert tab.faults == []


def test_several_selected_come_as_one_file_are_favoured_and_deleted(
    browser: Browser, served: ServedStudio, pictures: list[str]
) -> None:
    tab, gallery = open_gallery(browser, served)
    tiles = gallery.locator(".grid li")
    tiles.first.locator(".open").focus()
    tab.page.keyboard.press("Space")
    tiles.nth(2).locator(".open").click(modifiers=["Shift"])
    expect(gallery.get_by_text("3 selected")).to_be_visible()
    with tab.page.expect_download() as download:
        gallery.locator(".bar").get_by_role("link", name="Download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        content = {Path(name).stem: archive.read(name) for name in archive.namelist()}
    assert content == {id: served.studio.picture_content(ME, id)[1].read_bytes() for id in pictures[1:]}
    gallery.locator(".bar").get_by_role("button", name="Favourite").click()
    expect(gallery.locator(".star[aria-pressed=true]")).to_have_count(3)
    assert ids(served, favourite=True) == pictures[:0:-1]
    gallery.locator(".bar").get_by_role("button", name="Delete").click()
    expect(tiles).to_have_count(1)
    assert ids(served) == [pictures[0]]
    assert tab.faults == []


def test_a_link_opens_a_picture_with_its_settings_and_the_keyboard_walks_on(
    browser: Browser, served: ServedStudio, pictures: list[str]
) -> None:
    tab = open_page(browser, served)
    tab.page.goto(f"{served.address}/#picture={pictures[2]}")
    details = tab.page.locator("dialog.details")
    expect(details.locator(".prompt")).to_have_text("a blue boat")
    expect(details.locator("seesr-viewer img").first).to_have_attribute("src", file_of(served, pictures[2]))
    expect(details.get_by_role("row", name="Seed")).to_contain_text("2")
    expect(details.get_by_role("row", name="Steps")).to_contain_text("2")
    expect(details.get_by_role("button", name="Next")).to_be_visible()
    tab.page.keyboard.press("ArrowRight")
    expect(details.locator(".prompt")).to_have_text("a green boat")
    assert tab.page.url.endswith(f"#picture={pictures[1]}")
    tab.page.keyboard.press("f")
    expect(details.get_by_role("button", name="★ Favourite")).to_have_attribute("aria-pressed", "true")
    assert ids(served, favourite=True) == [pictures[1]]
    details.get_by_label("Tags").fill("sea, two words")
    details.get_by_label("Tags").press("Enter")
    expect(details.get_by_role("status").or_(details.get_by_label("Tags"))).to_have_value("sea, two words")
    tab.page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    expect(tab.page.get_by_role("button", name="a green boat", exact=True)).to_be_focused()
    assert tab.page.url.endswith("#tab=gallery")
    tab.page.keyboard.press("Enter")
    expect(details).to_be_visible()
    tab.page.go_back()
    expect(details).to_be_hidden()
    tab.page.keyboard.press("Enter")
    details.get_by_role("button", name="Use its settings").click()
    expect(tab.field("text-prompt")).to_have_value("a green boat")
    expect(tab.field("text-seed")).to_have_value("1")
    expect(tab.field("text-prompt")).to_be_visible()
    assert served.studio.picture(ME, pictures[1]).tags == ["sea", "two words"]
    assert tab.faults == []


def test_a_picture_is_sent_to_upscale_and_compared_with_what_it_becomes(
    browser: Browser, served: ServedStudio, pictures: list[str]
) -> None:
    tab, gallery = open_gallery(browser, served)
    details = tab.page.locator("dialog.details")
    gallery.get_by_role("button", name="a red boat", exact=True).click()
    details.get_by_role("button", name="Upscale", exact=True).click()
    expect(tab.page.locator("seesr-drop[tab=upscale] figure")).to_have_count(1)
    tab.page.locator("#upscale-submit").click()
    tab.wait_for_picture("upscale")
    tab.open("Gallery")
    tiles = gallery.locator(".grid li")
    expect(tiles).to_have_count(5)
    request: Any = served.studio.jobs(ME)[0].request
    assert request.image == content_hash(served.studio.picture_content(ME, pictures[0])[1].read_bytes())
    tiles.first.locator(".open").click()
    expect(details.get_by_label("Before and after")).to_be_visible()
    before = details.locator("seesr-viewer .before")
    expect(before).to_have_attribute("src", f"{served.address}/api/v1/uploads/{request.image}")
    assert tab.faults == []


def test_two_are_compared_by_what_differs(browser: Browser, served: ServedStudio, pictures: list[str]) -> None:
    tab, gallery = open_gallery(browser, served)
    tiles, details = gallery.locator(".grid li"), tab.page.locator("dialog.details")
    tiles.first.locator(".open").focus()
    tab.page.keyboard.press("Space")
    compare = gallery.get_by_role("button", name="Compare", exact=True)
    expect(compare).to_be_disabled()
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("Space")
    compare.click()
    sides = {"img:not(.before)": pictures[3], "img.before": pictures[2]}
    for image, picture in sides.items():
        expect(details.locator(f"seesr-viewer {image}")).to_have_attribute("src", file_of(served, picture))
    expect(details.get_by_role("row", name="Seed").get_by_role("cell")).to_have_text(["2", "3"])
    expect(details.get_by_role("row", name="Prompt").get_by_role("cell")).to_have_text(["a blue boat", "a white boat"])
    expect(details.get_by_role("row", name="Steps")).to_have_count(0)
    tab.page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    assert tab.faults == []


def test_a_new_picture_comes_by_itself_without_moving_what_one_looks_at(
    browser: Browser, served: ServedStudio, pictures: list[str]
) -> None:
    tab, gallery = open_gallery(browser, served)
    tiles = gallery.locator(".grid li")
    expect(tiles).to_have_count(4)
    tab.page.mouse.move(2, 2)
    (first,) = served.studio.wait(ME, served.studio.submit(ME, generation("a first one")).id, 30).pictures
    expect(tiles).to_have_count(5)
    assert shown(gallery)[0] == first.id
    tiles.nth(3).hover()
    (second,) = served.studio.wait(ME, served.studio.submit(ME, generation("a second one")).id, 30).pictures
    fresh = gallery.get_by_role("button", name="New pictures: 1")
    expect(fresh).to_be_visible()
    expect(tiles).to_have_count(5)
    fresh.click()
    expect(tiles).to_have_count(6)
    assert shown(gallery) == [second.id, first.id, *pictures[::-1]]
    assert tab.faults == []


def test_one_of_a_batch_is_repeated_alone_with_its_seed(browser: Browser, served: ServedStudio) -> None:
    asked = generation("three boats", batch_count=3, steps=2)
    made = served.studio.wait(ME, served.studio.submit(ME, asked).id, 30).pictures[1]
    tab = open_page(browser, served)
    tab.page.goto(f"{served.address}/#picture={made.id}")
    details = tab.page.locator("dialog.details")
    details.get_by_role("button", name="Repeat with this seed").click()
    expect(details.get_by_role("status")).to_have_text("The job is in the queue.")
    again = served.studio.jobs(ME)[0].request
    assert isinstance(again, GenerationRequest)
    alone = {"seed": made.settings["seed"], "batch_count": 1}
    assert again == asked.model_copy(update={"options": asked.options.model_copy(update=alone)})
    assert tab.faults == []


def test_a_phone_shows_it_by_touch(browser: Browser, served: ServedStudio, pictures: list[str]) -> None:
    tab, gallery = open_gallery(browser, served, size=PHONE, has_touch=True, is_mobile=True)
    tiles, details = gallery.locator(".grid li"), tab.page.locator("dialog.details")
    expect(tiles).to_have_count(4)
    tiles.nth(1).locator(".star").tap()
    expect(tiles.nth(1).locator(".star")).to_have_attribute("aria-pressed", "true")
    tiles.nth(0).locator(".check").tap()
    tiles.nth(2).locator(".open").tap()
    expect(gallery.get_by_text("2 selected")).to_be_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert small_targets(tab) == []
    gallery.locator(".bar").get_by_role("button", name="Delete").tap()
    expect(tiles).to_have_count(2)
    gallery.get_by_role("button", name="Undo").tap()
    expect(tiles).to_have_count(4)
    tiles.nth(1).locator(".open").tap()
    details.get_by_role("button", name="Next picture").tap()
    expect(details.locator(".prompt")).to_have_text("a green boat")
    assert small_targets(tab) == []
    details.get_by_role("button", name="Close").tap()
    expect(details).to_be_hidden()
    assert ids(served, favourite=True) == [pictures[2]]
    assert ids(served) == pictures[::-1]
    assert tab.faults == []
