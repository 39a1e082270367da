"""What the page's tabs are built with: the studio, the words, and the fields whose values each user finds again."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gradio as gr
from gradio.components import Component

from seesr.errors import InputError, OptionError, SeeSRError
from seesr.jobs import GenerationRequest, UpscaleRequest
from seesr.options import OptionModel
from seesr.studio.page.messages import Messages
from seesr.studio.records import Job, User
from seesr.studio.studio import Studio

AnyComponent = TypeVar("AnyComponent", bound=Component)
HIDDEN: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Of every event: answered at once, without Gradio's queue, and for the page alone."""

MAX_SHOWN = 240
"""Jobs whose pictures a tab still shows; a bar stands between those that were asked for together."""


MAX_SLIDER = 2
"""Highest value of a slider; what reaches further is written as a number."""


class FieldError(InputError):
    """Something is missing from a field, which is marked."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def user_of(request: gr.Request) -> User:
    """Who asks, as the door found out."""
    assert request.request is not None
    return request.request.scope["state"]["user"]


@dataclass
class Page:
    """The page in one language, while it is built."""

    studio: Studio
    text: Messages
    forms: list[Form] = field(default_factory=list)
    help: dict[str, str] = field(default_factory=dict)
    """What each field means, by the id of its element: it is said on hover."""

    def submit(self, user: User, request: UpscaleRequest | GenerationRequest) -> Job:
        """As `Studio.submit`; pictures are written as the user prefers where the tab does not name a format."""
        preferred = self.studio.preferences(user).saving
        saving = preferred.model_copy(update={"format": request.saving.format or preferred.format})
        return self.studio.submit(user, request.model_copy(update={"saving": saving}))

    def submit_all(self, user: User, requests: Iterable[UpscaleRequest | GenerationRequest]) -> list[str]:
        """Puts all jobs into the queue, or none; returns their ids.

        Raises:
            InputError, LimitError: as `Studio.submit`.
        """
        ids = list[str]()
        try:
            for request in requests:
                ids.append(self.submit(user, request).id)
        except SeeSRError:
            for id in ids:
                self.studio.cancel(user, id)
            raise
        return ids

    def form(self, tab: str) -> Form:
        """The fields of a tab, which are remembered under its name."""
        form = Form(self, tab)
        self.forms.append(form)
        return form

    def remember_on_load(self, blocks: gr.Blocks) -> None:
        """Gives all fields the values that the user left them with, whenever the page is opened."""
        fields = [component for form in self.forms for component in form.fields.values()]

        def load(request: gr.Request) -> list[Any]:
            user = user_of(request)
            return [value for form in self.forms for value in form.remembered(user)]

        blocks.load(load, None, fields, **HIDDEN)


class Form:
    """The fields of a tab. Their values are kept by the server for each user, as the setting `page.TAB`."""

    def __init__(self, page: Page, tab: str) -> None:
        self.page, self.tab = page, tab
        self.fields = dict[str, Component]()
        self.defaults = dict[str, Any]()
        self.scripted = set[str]()
        self.error: gr.HTML

    @property
    def setting(self) -> str:
        """Name of the user's setting that holds the values."""
        return f"page.{self.tab}"

    def add(self, name: str, component: AnyComponent) -> AnyComponent:
        """Takes a field, whose value now is its default."""
        self.fields[name], self.defaults[name] = component, getattr(component, "value", None)
        return component

    def option(self, model: type[OptionModel], name: str, **arguments: Any) -> Component:
        """A field for an option: its bounds, choices, default and help are those of the option."""
        text = self.page.text
        shown: dict[str, Any] = {
            "label": text.get(f"field.{name}", name.replace("_", " ").capitalize()),
            "elem_id": f"{self.tab}-{name}",
            "value": model.model_fields[name].default,
        }
        shown |= arguments
        self.page.help[shown["elem_id"]] = text.get(f"help.{name}", model.describe(name))
        annotation, (low, high) = str(model.model_fields[name].annotation), model.bounds(name)
        if choices := arguments.get("choices") or model.choices(name):
            shown["choices"] = [*choices]
            if shown["value"] is None:
                shown |= {"choices": [(text("word.automatic"), ""), *choices], "value": ""}
            return self.add(name, gr.Dropdown(**shown))
        if "bool" in annotation:
            return self.add(name, gr.Checkbox(**shown))
        if "str" in annotation:
            return self.add(name, gr.Textbox(**shown))
        if shown["value"] is not None and "float" in annotation and high is not None and high <= MAX_SLIDER:
            return self.add(name, gr.Slider(**{"minimum": low, "maximum": high, "step": 0.05, "buttons": []} | shown))
        precision = 0 if "int" in annotation else None
        number: dict[str, Any] = {"placeholder": text("word.automatic")} | shown
        return self.add(name, gr.Number(precision=precision, **number))

    def hidden(self, name: str) -> gr.Textbox:
        """A value that the browser's script reads and writes: content hashes of pictures, ids of jobs."""
        box = gr.Textbox("", visible="hidden", elem_id=f"{self.tab}-{name}", label=f"{self.tab}-{name}")
        self.scripted.add(name)
        self.add(name, box)
        self.tell(name)
        return box

    def tell(self, name: str) -> None:
        """Lets the browser's script know a field's value, now and whenever it changes."""
        js = f"value => seesr.set({json.dumps(self.tab)}, {json.dumps(name)}, value)"
        self.fields[name].change(None, self.fields[name], None, js=js, **HIDDEN)  # pyright: ignore[reportAttributeAccessIssue]

    def remembered(self, user: User) -> list[Any]:
        """The values that a user left, or the defaults, in the order of the fields."""
        kept = self.page.studio.setting(user, self.setting) or {}
        return [kept.get(name, self.defaults[name]) for name in self.fields]

    def keep(self, user: User, values: Mapping[str, Any]) -> None:
        """Remembers some of the values."""
        kept = self.page.studio.setting(user, self.setting) or {}
        self.page.studio.set_setting(user, self.setting, kept | dict(values))

    def place_for_errors(self) -> None:
        """Draws where the tab tells of an error, in one sentence."""
        self.error = gr.HTML("", elem_id=f"{self.tab}-error", elem_classes="seesr-error")

    @property
    def collect(self) -> str:
        """JavaScript of an event whose inputs are all fields: the values, with what is still being uploaded."""
        return f"async (...values) => seesr.collect({json.dumps(self.tab)}, {json.dumps([*self.fields])}, values)"

    def connect(self, submit: gr.Button, make: Callable[[User, dict[str, Any]], list[str]]) -> None:
        """Lets the values be kept as they change, and the button put jobs into the queue.

        Args:
            make: is given the values by name, and returns the ids of the new jobs.
        """
        names, inputs = list(self.fields), [*self.fields.values()]

        def submit_jobs(request: gr.Request, *values: Any) -> tuple[Any, str]:
            user, given = user_of(request), dict(zip(names, values, strict=True))
            try:
                ids = make(user, given)
            except SeeSRError as failure:
                return gr.skip(), self.told(failure)
            jobs = newest_first(ids, given["jobs"])
            self.keep(user, given | {"jobs": jobs})
            return jobs, ""

        outputs = [self.fields["jobs"], self.error]
        submit.click(submit_jobs, inputs, outputs, js=self.collect, concurrency_limit=None, **HIDDEN)
        self.keep_changes()

    def keep_changes(self) -> None:
        """Lets the values be kept as they change."""
        for name, component in self.fields.items():
            self._keep_changes(name, component)

    def add_reset(self, button: gr.Button) -> None:
        """Lets a button give all fields their defaults."""

        def reset(request: gr.Request) -> list[Any]:
            self.page.studio.set_setting(user_of(request), self.setting, None)
            return list(self.defaults.values())

        button.click(reset, None, [*self.fields.values()], **HIDDEN)

    def _keep_changes(self, name: str, component: Component) -> None:
        def keep(request: gr.Request, value: Any) -> None:
            user = user_of(request)
            kept = self.page.studio.setting(user, self.setting) or {}
            if kept.get(name, self.defaults[name]) != value:
                self.keep(user, {name: value})

        # `input` is of the user alone: what the page itself sets is kept already. Gradio does not tell it of hidden fields.
        changes: Any = component
        listen = changes.change if name in self.scripted else changes.input
        listen(keep, component, None, trigger_mode="always_last", **HIDDEN)

    def told(self, failure: SeeSRError) -> str:
        """The sentence, and the field that it is about, which the script marks."""
        sentence = str(failure)
        named = sentence.partition(" is ")[0].rpartition(".")[2] if isinstance(failure, OptionError) else ""
        named = failure.field if isinstance(failure, FieldError) else named
        marked = f"{self.tab}-{named}" if named in self.fields else ""
        return f'<p role="alert" data-field="{html.escape(marked)}">{html.escape(sentence[:1].upper() + sentence[1:])}</p>'


def newest_first(ids: list[str], jobs: str) -> str:
    """The value of a tab's field `jobs` with new ones before those that it had."""
    return " ".join([*ids, "|", *jobs.split()][:MAX_SHOWN])


def shell(kind: str, tab: str, **data: object) -> gr.HTML:
    """An element of the browser's script, of which `static/page.js` tells; `data` become its attributes."""
    attributes = "".join(f' {name}="{html.escape(str(value))}"' for name, value in data.items())
    return gr.HTML(f'<seesr-{kind} tab="{tab}"{attributes}></seesr-{kind}>', elem_classes="seesr-shell")
