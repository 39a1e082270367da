"""What a picture's file says on the page: fields that are filled from it, the tab Extras, and plots over options."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import photograph
from page_browser import Tab, log_in, open_page, ready
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, expect
from studio_server import ServedStudio

from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest
from seesr.studio.records import LOCAL, User

pytestmark = pytest.mark.system
WAIT = 30_000
ME = User(name=LOCAL, role="admin")


@pytest.fixture(scope="module")
def drawn(real: ServedStudio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that the studio made, as its file was saved."""
    options = GenerationOptions(
        prompt="a red apple",
        negative_prompt="a leaf, green",
        steps=3,
        guidance_scale=1.5,
        sampler="DPM++ 2M",
        schedule="Karras",
        width=128,
        height=64,
        seed=2**32 - 5,
        variation_seed=3,
        variation_strength=0.25,
        clip_skip=2,
    )
    job = real.studio.wait(ME, real.studio.submit(ME, GenerationRequest(options=options)).id, 120)
    path = tmp_path_factory.mktemp("drawn") / "apple.png"
    path.write_bytes(file(real, job.pictures[0].id))
    return path


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def file(served: ServedStudio, picture: str) -> bytes:
    return served.studio.picture_content(ME, picture)[1].read_bytes()


def with_infotext_alone(path: Path) -> bytes:
    """The picture as A1111 would have saved it: with an infotext, without our settings."""
    image, texts, buffer = Image.open(path), PngInfo(), io.BytesIO()
    texts.add_text("parameters", image.info["parameters"])
    image.save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()


@pytest.mark.parametrize("of_a1111", [False, True])
def test_the_fields_filled_from_a_file_make_its_picture_again(
    browser: Browser, real: ServedStudio, drawn: Path, tmp_path: Path, of_a1111: bool
) -> None:
    source = tmp_path / "source.png"
    source.write_bytes(with_infotext_alone(drawn) if of_a1111 else drawn.read_bytes())
    tab = ready(open_page(browser, real))
    tab.open("Extras")
    tab.page.locator("seesr-drop[tab=extras] input").set_input_files(source)
    facts = tab.page.get_by_label("Settings", exact=True)
    expect(facts).to_contain_text("a red apple", timeout=WAIT)
    expect(facts).to_contain_text("SeeSR")
    facts.get_by_role("button", name="Use its settings").click()
    expect(tab.page.locator("#text-error [role=status]")).to_be_visible(timeout=WAIT)
    expect(tab.field("text-prompt")).to_have_value("a red apple")
    expect(tab.field("text-negative_prompt")).to_have_value("a leaf, green")
    for name, value in {"width": "128", "height": "64", "steps": "3", "seed": f"{2**32 - 5}"}.items():
        expect(tab.field(f"text-{name}")).to_have_value(value)
    tab.page.locator("#text-submit").click()
    picture = tab.wait_for_picture("text")
    assert (pixels(file(real, picture)) == pixels(drawn.read_bytes())).all()
    request: Any = real.studio.job(ME, real.studio.picture(ME, picture).job or "").request
    assert request.checkpoint in ((None,) if of_a1111 else ("pictograms",))
    assert tab.faults == []


def test_a_picture_dropped_on_a_tab_offers_its_settings(browser: Browser, real: ServedStudio, drawn: Path) -> None:
    tab = ready(open_page(browser, real))
    tab.open("Image to image")
    tab.page.locator("seesr-drop[tab=image] .place input").set_input_files(drawn)
    tab.page.locator("seesr-settings[tab=image]").get_by_role("button", name="Use its settings").click(timeout=WAIT)
    expect(tab.page.locator("#tab-text-button")).to_have_attribute("aria-selected", "true", timeout=WAIT)
    expect(tab.field("text-seed")).to_have_value(f"{2**32 - 5}")
    kept = real.studio.setting(ME, "page.text")
    assert (kept["steps"], kept["schedule"], kept["variation_strength"]) == (3, "Karras", 0.25)
    drop(tab, "#tab-text", drawn.read_bytes())
    expect(tab.page.locator("seesr-settings[tab=text]").get_by_role("button", name="Use its settings")).to_be_visible(
        timeout=WAIT
    )
    assert tab.faults == []


def test_what_has_no_field_is_named(browser: Browser, real: ServedStudio, tmp_path: Path) -> None:
    texts = PngInfo()
    text = "a cat\nSteps: 4, Sampler: Euler, Seed: 5, Size: 64x64, Denoising strength: 0.5, Magic: 3, Version: v1.10.1"
    texts.add_text("parameters", text)
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "cat.png", pnginfo=texts)
    tab = ready(open_page(browser, real))
    tab.open("Extras")
    tab.page.locator("seesr-drop[tab=extras] input").set_input_files(tmp_path / "cat.png")
    facts = tab.page.get_by_label("Settings", exact=True)
    expect(facts).to_contain_text("AUTOMATIC1111 web UI v1.10.1", timeout=WAIT)
    facts.get_by_role("button", name="Use its settings").click()
    told = tab.page.locator("#image-error [role=status]")
    expect(told).to_contain_text("the picture that it was made from", timeout=WAIT)
    expect(told).to_contain_text("Magic")
    expect(tab.field("image-prompt")).to_have_value("a cat")
    assert real.studio.setting(ME, "page.image")["strength"] == 0.5
    assert tab.faults == []


def test_the_tags_of_a_picture_become_a_prompt(browser: Browser, real: ServedStudio, tmp_path: Path) -> None:
    cup = tmp_path / "cup.png"
    photograph("coffee.png").resize((150, 100)).save(cup)
    tab = ready(open_page(browser, real, permissions=["clipboard-read", "clipboard-write"]))
    tab.open("Extras")
    tab.page.locator("seesr-drop[tab=extras] input").set_input_files(cup)
    tab.page.get_by_role("button", name="Find tags").click()
    tags = tab.page.get_by_label("Tags", exact=True)
    expect(tags.get_by_role("listitem").first).to_be_visible(timeout=60_000)
    job = real.studio.jobs(ME)[0]
    prompt = ", ".join(job.result["tags"])
    assert job.request.task == "tags"
    assert prompt
    tags.get_by_role("button", name="Copy as prompt").click()
    expect(tags.get_by_role("button", name="Copied")).to_be_visible()
    assert tab.page.evaluate("navigator.clipboard.readText()") == prompt
    tags.get_by_role("button", name="Send to prompt").click()
    expect(tab.field("text-prompt")).to_have_value(prompt)
    tab.open("Extras")
    upload = real.studio.upload(ME, cup.read_bytes())
    with tab.page.expect_response(lambda answer: upload in (answer.request.post_data or ""), timeout=WAIT):
        tab.page.get_by_role("button", name="Enlarge").click()
    expect(tab.page.locator("seesr-drop[tab=upscale] figure")).to_have_count(1)
    assert real.studio.setting(ME, "page.upscale")["pictures"] == upload
    assert tab.faults == []


def test_a_plot_is_a_table_of_jobs_that_differ_by_its_axes(browser: Browser, shared: ServedStudio, tmp_path: Path) -> None:
    tab = log_in(browser, shared, "ben")
    tab.open("Text to image")
    tab.field("text-prompt").fill("a cat")
    tab.page.get_by_role("button", name="X/Y/Z plot").click()
    for axis, option, values in (("x", "Steps", "2..4 by 2"), ("y", "Replace words", "cat, dog"), ("z", "Sampler", "Euler")):
        tab.field(f"text-plot_{axis}").click()
        tab.page.get_by_role("option", name=option, exact=True).click()
        tab.field(f"text-plot_{axis}_values").fill(values)
    expect(tab.page.locator("#text-plot-count")).to_have_text("4 pictures, each a job of its own.", timeout=WAIT)
    tab.field("text-plot_x_values").fill("1-150")
    expect(tab.page.locator("#text-plot-count")).to_contain_text("the limit is 200", timeout=WAIT)
    tab.field("text-plot_x_values").fill("2..4 by 2")
    expect(tab.page.locator("#text-plot-count")).to_contain_text("4 pictures", timeout=WAIT)
    tab.page.get_by_role("button", name="Make the plot").click()
    sheet = tab.page.locator("seesr-sheet[tab=text]")
    expect(sheet.get_by_role("status")).to_have_text("4 of 4 pictures", timeout=60_000)
    made = shared.studio.jobs(User(name="ben"))[3::-1]
    requests = [GenerationRequest.model_validate(job.request.model_dump()).options for job in made]
    assert [(one.steps, one.prompt, one.sampler) for one in requests] == [
        (steps, prompt, "Euler") for prompt in ("a cat", "a dog") for steps in (2, 4)
    ]
    assert len({one.seed for one in requests}) == 1
    cells = sheet.locator("td img")
    shown = [(cells.nth(place).get_attribute("src") or "").split("/")[-2] for place in range(4)]
    assert shown == [job.pictures[0].id for job in made]
    with tab.page.expect_download() as saved:
        sheet.get_by_role("button", name="Download sheet").click()
    saved.value.save_as(tmp_path / "sheet.png")
    grey = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")) == 128
    assert grey.all(axis=2).sum() == pytest.approx(4 * 64 * 64, rel=0.01)
    tab.page.reload()
    ready(tab)
    tab.open("Text to image")
    expect(sheet.get_by_role("status")).to_have_text("4 of 4 pictures", timeout=WAIT)
    sheet.get_by_role("button", name="dog").last.click()
    assert tab.wait_for_picture("text") == made[-1].pictures[0].id
    sheet.get_by_role("button", name="Close the plot").click()
    expect(sheet).to_be_hidden()
    assert tab.faults == []


def drop(tab: Tab, place: str, content: bytes) -> None:
    """Drops a file on an element, as the browser does."""
    given: dict[str, Any] = {"place": place, "bytes": list(content)}
    tab.page.evaluate(
        """({place, bytes}) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "apple.png", {type: "image/png"}));
            document.querySelector(place).dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        }""",
        given,
    )
