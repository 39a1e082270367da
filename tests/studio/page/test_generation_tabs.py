"""The tabs that make pictures, from click to file: LoRA cards, ControlNet, checkpoints, a picture to begin from, batches."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import loras
import numpy as np
import pytest
import torch
from controlnets import save_controlnet
from diffusers import UNet2DConditionModel
from helpers import photograph
from page_browser import PHONE, Tab, open_page, ready
from PIL import Image
from playwright.sync_api import Browser, Locator, expect
from safetensors.torch import save_file
from stand_in_worker import StandInWorker
from studio_server import ServedStudio, serving

from seesr.job_runner import JobRunner, WorkerSettings
from seesr.jobs import GenerationRequest
from seesr.studio.records import LOCAL, User
from seesr.weights.manifest import beside_package

pytestmark = pytest.mark.system
ME = User(name=LOCAL, role="admin")
TABS = {"text": "Text to image", "image": "Image to image", "inpaint": "Inpaint"}
SLOW = 30_000
"""Milliseconds that a word may take to come on a machine that others use too."""


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """A studio on the embedded checkpoint, with LoRAs, an embedding, a ControlNet and a second checkpoint."""
    data, embedded = tmp_path_factory.mktemp("drawing"), beside_package("pictograms")
    models = data / "models"
    unet = UNet2DConditionModel.from_pretrained(embedded / "unet")
    layers = loras.kohya(loras.factors(unet, 1, ("attn1.to_q", "attn2.to_k")))
    loras.write(models / "loras" / "styles" / "ink.safetensors", layers, {"modelspec.trigger_phrase": "ink wash, paper"})
    Image.new("RGB", (60, 40), "teal").save(models / "loras" / "styles" / "ink.png")
    loras.write(models / "loras" / "portrait.safetensors", layers, {"ss_base_model_version": "sd_v1"})
    (models / "embeddings").mkdir()
    save_file({"emb_params": torch.ones(2, unet.config["cross_attention_dim"])}, models / "embeddings" / "mood.safetensors")
    save_controlnet(unet, models / "controlnet" / "edges", 1)
    shutil.copytree(embedded, models / "checkpoints" / "mine")
    (models / "checkpoints" / "mine" / "seesr.json").write_text(json.dumps({"steps": 2, "guidance_scale": 2.5}))
    worker = JobRunner(WorkerSettings(device="cpu", dtype="float32", data=data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEESR_DATA", str(data))
        with serving(data, worker=worker, page=True) as served:
            yield served


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """A studio whose worker takes a second a step."""
    with serving(tmp_path_factory.mktemp("waiting"), worker=StandInWorker(1.0), page=True) as served:
        yield served


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """64x48 pixels."""
    photograph("chelsea.png", (150, 80, 214, 128)).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def open_tab(browser: Browser, served: ServedStudio, tab: str, **arguments: Any) -> tuple[Tab, Locator]:
    """A tab with fresh fields, and its panel."""
    for name in TABS:
        served.studio.set_setting(ME, f"page.{name}", None)
    page = ready(open_page(browser, served, **arguments))
    panel = page.open(TABS[tab])
    panel.locator(f"seesr-choices[tab={tab}] select").first.wait_for(timeout=SLOW)
    return page, panel


def fill(page: Tab, tab: str, **values: str) -> None:
    for name, value in values.items():
        page.field(f"{tab}-{name}").fill(value)


def generate(page: Tab, served: ServedStudio, tab: str, besides: str = "") -> tuple[str, GenerationRequest]:
    """Presses Generate; returns the picture that is shown then, and the request that the server has of it."""
    page.page.locator(f"#{tab}-submit").click()
    picture = page.wait_for_picture(tab, besides)
    request = served.studio.job(ME, served.studio.picture(ME, picture).job or "").request
    assert isinstance(request, GenerationRequest)
    return picture, request


def pixels(served: ServedStudio, picture: str) -> np.ndarray[Any, Any]:
    content = served.studio.picture_content(ME, picture)[1].read_bytes()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def made_by_api(served: ServedStudio, request: GenerationRequest, **changes: Any) -> np.ndarray[Any, Any]:
    """The picture of a request that is sent without the page."""
    job = served.studio.submit(ME, request.model_copy(update=changes))
    return pixels(served, served.studio.wait(ME, job.id, 120).pictures[0].id)


def test_a_card_puts_its_lora_and_its_words_into_the_prompt_and_changes_the_picture(
    browser: Browser, drawing: ServedStudio
) -> None:
    page, panel = open_tab(browser, drawing, "text")
    fill(page, "text", prompt="a red apple", steps="2", seed="7")
    count = panel.locator("seesr-tokens [role=status]")
    expect(count).to_have_text("3/75", timeout=SLOW)
    panel.get_by_text("LoRAs and embeddings").click()
    cards = panel.locator("seesr-cards article")
    expect(cards).to_have_count(3, timeout=SLOW)
    ink = cards.filter(has_text="ink wash")
    expect(cards.filter(has_text="portrait")).to_contain_text("for SD 1, not for pictograms")
    expect(ink.locator("img")).to_have_js_property("naturalWidth", 60, timeout=SLOW)
    ink.get_by_role("button", name="ink", exact=True).click()
    ink.get_by_role("button", name="ink wash").click()
    prompt = page.field("text-prompt")
    expect(prompt).to_have_value("a red apple, ink wash <lora:styles/ink:0.8>")
    expect(ink.get_by_role("button", name="ink", exact=True)).to_have_attribute("aria-pressed", "true")
    ink.get_by_role("slider").fill("1.5")
    expect(prompt).to_have_value("a red apple, ink wash <lora:styles/ink:1.5>")
    expect(count).not_to_have_text("3/75", timeout=SLOW)
    picture, request = generate(page, drawing, "text")
    assert request.options.prompt == "a red apple, ink wash <lora:styles/ink:1.5>"
    with_lora = pixels(drawing, picture)
    assert (with_lora == made_by_api(drawing, request)).all()
    plain = request.options.model_copy(update={"prompt": "a red apple, ink wash"})
    assert (with_lora != made_by_api(drawing, request, options=plain)).any()
    ink.get_by_role("button", name="ink", exact=True).click()
    cards.filter(has_text="mood").get_by_role("button").click()
    expect(prompt).to_have_value("a red apple, ink wash, mood")
    prompt.fill("sea " * 80)
    expect(count).to_have_text("80/75 read in parts of 75 tokens", timeout=SLOW)
    assert page.faults == []


def test_a_checkpoint_says_what_empty_fields_are_and_is_found_again(browser: Browser, drawing: ServedStudio) -> None:
    page, panel = open_tab(browser, drawing, "text")
    choice = panel.get_by_role("combobox", name="Checkpoint")
    expect(choice.locator("option")).to_have_text(["Default (pictograms)", "pictograms", "mine"])
    expect(page.field("text-steps")).to_have_attribute("placeholder", "20", timeout=SLOW)
    choice.select_option("mine")
    expect(panel.locator("seesr-choices .about")).to_contain_text("2 steps, guidance 2.5", timeout=SLOW)
    expect(page.field("text-steps")).to_have_attribute("placeholder", "2")
    expect(page.field("text-width")).to_have_attribute("placeholder", "128")
    panel.get_by_role("button", name="3:2").click()
    expect(page.field("text-width")).to_have_value("160")
    fill(page, "text", prompt="a tree", seed="3", width="", height="")
    picture, request = generate(page, drawing, "text")
    assert (request.checkpoint, request.options.steps, request.options.width) == ("mine", None, None)
    assert (pixels(drawing, picture) == made_by_api(drawing, request)).all()
    assert drawing.studio.picture(ME, picture).settings["steps"] == 2
    page.page.reload()
    ready(page)
    page.open("Text to image")
    expect(page.page.get_by_role("combobox", name="Checkpoint").and_(page.page.locator(":visible"))).to_have_value(
        "mine", timeout=SLOW
    )
    assert page.faults == []


def test_a_controlnet_steers_and_what_it_lacks_stands_at_its_place(
    browser: Browser, drawing: ServedStudio, photo: Path
) -> None:
    page, panel = open_tab(browser, drawing, "text")
    fill(page, "text", prompt="a house", steps="2", seed="5")
    units = panel.locator("seesr-controls")
    units.locator("summary").click()
    units.get_by_role("combobox", name="ControlNet").select_option("edges", timeout=SLOW)
    before = len(drawing.studio.jobs(ME))
    page.page.locator("#text-submit").click()
    expect(page.page.locator("#text-error [role=alert]")).to_have_text(
        "Unit 1 of ControlNet has no picture; drop one on it.", timeout=SLOW
    )
    expect(units).to_have_class(re.compile("refused"))
    assert len(drawing.studio.jobs(ME)) == before
    units.get_by_label("Drop the picture to steer by").set_input_files(photo)
    units.locator(".place img").wait_for(timeout=SLOW)
    units.get_by_role("combobox", name="Preprocessor").select_option("canny")
    units.get_by_role("spinbutton", name="Weight").fill("1.5")
    units.get_by_role("spinbutton", name="End").fill("0.9")
    picture, request = generate(page, drawing, "text")
    (unit,) = request.controls
    assert (unit.name, unit.weight, unit.start, unit.end, unit.preprocessor) == ("edges", 1.5, 0.0, 0.9, "canny")
    assert drawing.studio.uploaded(ME, unit.image)[0] == photo.read_bytes()
    steered = pixels(drawing, picture)
    assert (steered == made_by_api(drawing, request)).all()
    assert (steered != made_by_api(drawing, request, controls=())).any()
    units.get_by_role("button", name="Add a unit").click()
    expect(units.locator("fieldset")).to_have_count(2)
    units.get_by_role("button", name="Remove the unit").last.click()
    expect(units.locator("fieldset")).to_have_count(1)
    assert page.faults == []


def test_a_picture_is_changed_and_grows_at_its_sides(browser: Browser, drawing: ServedStudio, photo: Path) -> None:
    page, panel = open_tab(browser, drawing, "image")
    page.page.locator("#image-submit").click()
    expect(panel.locator("#image-error [role=alert]")).to_have_text("There is no picture; drop one first.", timeout=SLOW)
    expect(panel.locator("seesr-drop")).to_have_class(re.compile("refused"))
    panel.locator("seesr-drop input").set_input_files(photo)
    fill(page, "image", prompt="a drawing of a cat", steps="3", seed="4")
    page.page.locator("#image-strength input[type=number]").fill("0.5")
    picture, request = generate(page, drawing, "image")
    assert (request.task, request.options.strength) == ("image to image", 0.5)
    assert (pixels(drawing, picture) == made_by_api(drawing, request)).all()
    panel = page.open("Inpaint")
    panel.locator("seesr-drop .place input").set_input_files(photo)
    panel.locator("seesr-drop canvas").wait_for(timeout=SLOW)
    panel.get_by_role("button", name="Outpaint").click()
    fill(page, "inpaint", prompt="grass", steps="2", seed="6", outpaint_right="32")
    picture, request = generate(page, drawing, "inpaint")
    grown = pixels(drawing, picture)
    assert (request.options.outpaint, request.mask, grown.shape) == ((0, 0, 32, 0), None, (48, 96, 3))
    assert (grown == made_by_api(drawing, request)).all()
    original = np.asarray(Image.open(photo).convert("RGB")).astype(int)
    assert (grown[:, :48] == original[:, :48]).all()
    assert page.faults == []


def test_a_picture_of_a_batch_is_skipped_and_the_others_are_made(browser: Browser, waiting: ServedStudio) -> None:
    page, panel = open_tab(browser, waiting, "text")
    panel.get_by_role("button", name="Advanced").click()
    fill(page, "text", prompt="boats", batch_count="3")
    page.page.locator("#text-submit").click()
    view = panel.locator("seesr-view")
    expect(view.locator(".status")).to_contain_text("picture 1 of 3 · denoising · step 1 of 4 · 1.0 s left", timeout=SLOW)
    view.get_by_role("button", name="Skip this picture").click()
    expect(view.locator(".status")).to_contain_text("picture 2 of 3", timeout=SLOW)
    page.wait_for_picture("text")
    expect(view.locator(".strip img")).to_have_count(2, timeout=SLOW)
    (job,) = waiting.studio.jobs(ME)
    assert waiting.studio.wait(ME, job.id, 60).state == "done"
    assert len(waiting.studio.job(ME, job.id).pictures) == 2
    assert page.faults == []


@pytest.mark.parametrize("tab", TABS)
def test_on_a_phone_nothing_is_wider_than_the_screen_and_all_can_be_hit(
    browser: Browser, drawing: ServedStudio, tab: str
) -> None:
    page, panel = open_tab(browser, drawing, tab, size=PHONE, has_touch=True)
    for part in ("seesr-cards", "seesr-controls"):
        panel.locator(f"{part} summary").tap()
    panel.locator("seesr-cards article").first.wait_for(timeout=SLOW)
    panel.locator("seesr-controls fieldset").wait_for(timeout=SLOW)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    own = panel.locator(":is(seesr-cards, seesr-controls, seesr-choices) :is(button, summary, select, .weight, .place)")
    heights = [box["height"] for one in own.all() if (box := one.bounding_box())]
    assert len(heights) > 8
    assert min(heights) >= 40
    assert page.faults == []
