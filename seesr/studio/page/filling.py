"""Fills the fields of the tab that fits with the settings of a picture, and says what of them has no field."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from seesr.errors import OptionError
from seesr.generation.checkpoint_facts import known_checkpoints
from seesr.generation.infotext import Infotext
from seesr.generation.library import MODELS, VAES, model_folders, model_places
from seesr.generation.like import KEYS, values_from_infotext, values_from_settings
from seesr.generation.options import GenerationOptions
from seesr.generation.samplers import parse_sampler
from seesr.jobs import NEEDED, Task
from seesr.options import OptionModel, Options
from seesr.studio.page.context import HIDDEN, Form, Page, user_of
from seesr.studio.picture_facts import task_of

TABS: dict[Task, str] = {
    "upscale": "upscale",
    "text to image": "text",
    "image to image": "image",
    "inpainting": "inpaint",
}
KEPT = ("pictures", "mask", "jobs", "plot")
"""Fields that keep their values unless the settings come with others."""
TOLD_KEYS = {"Size", "Version", "RNG", "Model", "Model hash", "VAE", "VAE hash", "Lora hashes", "TI hashes"}
"""Keys of an infotext that are filled by another way, or change nothing here."""


@dataclass
class Filling:
    """What is written into the fields of a tab."""

    task: Task
    values: dict[str, Any] = field(default_factory=dict)
    """By the names of the fields."""
    unread: list[str] = field(default_factory=list)
    """Names of settings that no field of any tab can have."""


def filling_of(settings: dict[str, Any] | None, infotext: str | None) -> Filling | None:
    """The values that a picture's settings, or its infotext, give to fields; None where they tell of no task.

    They come from a file that anybody may have written: what is not valid is named in `unread`.
    """
    task = task_of(settings, infotext)
    if task is None:
        return None
    filling = Filling(task)
    if task == "upscale":
        given = {name: value for name, value in (settings or {}).items() if name in Options.model_fields}
        given["prompt"] = (settings or {}).get("words", given.get("prompt"))
        _take(filling, Options, given)
        return filling
    if settings is not None:
        _take(filling, GenerationOptions, values_from_settings(settings))
        models = {
            "checkpoint": re.sub(r" \((embedded|cache)\)$", "", str(settings.get("weights") or "")),
            "vae": settings.get("vae_name"),
            "controls": settings.get("controls"),
        }
    else:
        parameters = Infotext.parse(infotext or "").parameters
        _take(filling, GenerationOptions, values_from_infotext(infotext or ""))
        read = {key for key, (name, _) in KEYS.items() if name in filling.values or name == "strength"}
        filling.unread += [key for key in parameters if key not in read | TOLD_KEYS]
        models = {"checkpoint": parameters.get("Model"), "vae": parameters.get("VAE")}
    filling.values |= {name: value for name, value in models.items() if value}
    if outpaint := filling.values.pop("outpaint", None):
        filling.values |= dict(
            zip(("outpaint_left", "outpaint_top", "outpaint_right", "outpaint_bottom"), outpaint, strict=True)
        )
    return filling


def add_filling(page: Page) -> None:
    """Lets the script fill fields: it writes a picture's settings into a hidden field, as JSON.

    The JSON has `settings`, `infotext`, and hashes of uploads as `pictures` and `mask`; each may be missing.
    """
    box = gr.Textbox("", visible="hidden", elem_id="fill-settings", label="fill")
    tab = gr.Textbox("", visible="hidden", elem_id="fill-tab", label="fill")
    forms = {form.tab: form for form in page.forms if form.tab in TABS.values()}
    fields = [component for form in forms.values() for component in [*form.fields.values(), form.error]]
    models = page.studio.files.root / MODELS

    def fill(request: gr.Request, text: str) -> list[Any]:
        given = json.loads(text)
        filling = filling_of(given.get("settings"), given.get("infotext"))
        if filling is None:
            return ["", *(gr.skip() for _ in fields)]
        unknown = _leave_out_unknown_models(filling, models)
        answer, opened = list[Any](), TABS[filling.task]
        for form in forms.values():
            if form.tab == opened:
                values, missing = _for_form(form, filling, given)
                missing += [f"{_label(form, name)} {value}" for name, value in unknown]
                form.keep(user_of(request), values)
                answer += [values.get(name, gr.skip()) for name in form.fields] + [_told(page, missing)]
            else:
                answer += [gr.skip() for _ in (*form.fields, "error")]
        return [opened, *answer]

    box.change(fill, box, [tab, *fields], trigger_mode="always_last", **HIDDEN).then(
        None, tab, None, js="tab => seesr.filled(tab)", **HIDDEN
    )


def _leave_out_unknown_models(filling: Filling, models: Path) -> list[tuple[str, str]]:
    """Takes away the checkpoint and the VAE that are not here, and returns their fields and names.

    Args:
        models: the folder `models` of the data folder.
    """
    vaes = {place.name for folder in model_folders(VAES, models) for place in model_places(folder)}
    known = {"checkpoint": {place.name for place in known_checkpoints(models)}, "vae": vaes}
    unknown = [(name, str(filling.values[name])) for name in known if filling.values.get(name, "") not in {"", *known[name]}]
    for name, _ in unknown:
        del filling.values[name]
    return unknown


def _take(filling: Filling, model: type[OptionModel], given: Mapping[str, Any]) -> None:
    """Adds what is valid of the options that are given."""
    given = dict(given)
    try:
        if given.get("sampler"):
            sampler, given["schedule"] = parse_sampler(str(given["sampler"]), str(given.get("schedule") or "Automatic"))
            given["sampler"] = sampler.name
    except OptionError:
        pass  # named below
    for name, value in given.items():
        try:
            filling.values[name] = getattr(model.make(**{name: value}), name)
        except OptionError:
            filling.unread.append(name)


def _for_form(form: Form, filling: Filling, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a form's fields, those that are not named being the defaults; and what could not be filled."""
    text, values, missing = form.page.text, dict[str, Any](), list[str]()
    for name, default in form.defaults.items():
        if name in KEPT or name.startswith("plot"):
            continue
        value = filling.values.get(name)
        if value is not None and not _is_choice(form.fields[name], value):
            missing.append(f"{_label(form, name)} {value}")
            value = None
        values[name] = default if value is None else list(value) if isinstance(value, tuple) else value
    model = Options if filling.task == "upscale" else GenerationOptions
    for name, value in filling.values.items():
        has_effect = name not in model.model_fields or value != model.model_fields[name].default
        if name not in form.fields and has_effect:
            missing.append(_label(form, name))
    needed = {"image"} if filling.task in ("upscale", "tags") else NEEDED[filling.task]
    for name, picture in {"pictures": "image", "mask": "mask"}.items():
        if name in form.fields and given.get(name):
            values[name] = given[name]
        elif picture in needed and name in form.fields:
            missing.append(text(f"word.input_{picture}"))
    return values, list(dict.fromkeys([*missing, *(_label(form, name) for name in filling.unread)]))


def _is_choice(component: Any, value: Any) -> bool:
    """Whether a field can have a value: of a list that is one of its choices."""
    if not isinstance(component, gr.Dropdown) or component.allow_custom_value:
        return True
    known = [choice for _, choice in component.choices]
    return all(one in known for one in value) if component.multiselect else value in known


def _label(form: Form, name: str) -> str:
    return form.page.text.get(f"field.{name}", name.replace("_", " "))


def _told(page: Page, missing: list[str]) -> str:
    names = ", ".join(missing)
    sentence = page.text("word.filled_but", names=names) if missing else page.text("word.filled")
    return f'<p role="status">{html.escape(sentence)}</p>'
