"""X/Y/Z plots: up to three options with several values each, a job for each cell, and a table of their pictures."""

from __future__ import annotations

import html
import itertools
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from seesr.errors import InputError, SeeSRError
from seesr.generation.options import MAX_SEED
from seesr.jobs import GenerationRequest
from seesr.studio.page.axes import REPLACE, Axis, axis_names, check_name
from seesr.studio.page.context import HIDDEN, MAX_SHOWN, Form, Page, newest_first, user_of

AXES = ("x", "y", "z")
WITHOUT_PICTURE = {"strength"}
"""Axes of tabs that begin from a picture."""


@dataclass(frozen=True)
class Plot:
    """The axes, of which one without a name has a single cell."""

    axes: tuple[Axis | None, ...]

    @classmethod
    def of(cls, values: dict[str, Any]) -> Plot:
        """The plot that the fields of a form describe.

        Raises:
            InputError, OptionError: as `Axis.parse`.
        """
        names = [str(values.get(f"plot_{axis}") or "") for axis in AXES]
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise InputError(f"{twice} is on two axes; give it one.")
        texts = [str(values.get(f"plot_{axis}_values") or "") for axis in AXES]
        return cls(
            tuple(Axis.parse(check_name(name), text) if name else None for name, text in zip(names, texts, strict=True))
        )

    @property
    def count(self) -> int:
        """Cells; 0 without an axis."""
        if not any(self.axes):
            return 0
        lengths = [len(axis.values) if axis else 1 for axis in self.axes]
        return lengths[0] * lengths[1] * lengths[2]

    def cells(self, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The fields of each cell: x changes first, z last. All have one seed, unless an axis has it."""
        seed = values.get("seed")
        fixed = {"seed": secrets.randbelow(MAX_SEED) if seed in (None, "", -1) else seed, "batch_size": 1, "batch_count": 1}
        ranges = [[(axis, value) for value in axis.values] if axis else [(None, "")] for axis in reversed(self.axes)]
        for cell in itertools.product(*ranges):
            changed = values | fixed
            for axis, value in cell:
                changed = axis.apply(changed, value) if axis else changed
            yield changed

    def as_json(self, labels: Callable[[str, str], str], jobs: list[str]) -> str:
        """What the script draws the table from: the labels of each axis, and the jobs of the cells."""
        axes = [[labels(axis.name, value) for value in axis.values] if axis else [""] for axis in self.axes]
        return json.dumps({"axes": axes, "jobs": jobs})


def add_plot(page: Page, form: Form, has_picture: bool) -> Callable[[Callable[[dict[str, Any]], GenerationRequest]], None]:
    """Draws the fields of a plot; returns what connects its button, to be called once all fields of the form are there.

    Args:
        has_picture: whether the tab begins from a picture.
    """
    text = page.text
    names = [name for name in axis_names() if has_picture or name not in WITHOUT_PICTURE]
    known = [(text("word.none"), ""), *((label_of(page, name), name) for name in names)]
    form.hidden("plot")
    fields = list[Any]()
    with gr.Accordion(text("word.plot"), open=False):
        for axis in AXES:
            with gr.Row():
                name, values = f"plot_{axis}", f"plot_{axis}_values"
                shown = text("field.axis", axis=axis.upper())
                kept = gr.Dropdown(known, value="", label=shown, elem_id=f"{form.tab}-{name}", min_width=140)
                shown = text("field.axis_values", axis=axis.upper())
                written = gr.Textbox(
                    "", label=shown, placeholder=text("word.values"), elem_id=f"{form.tab}-{values}", min_width=140
                )
                fields += [form.add(name, kept), form.add(values, written)]
        count = gr.HTML("", elem_id=f"{form.tab}-plot-count", elem_classes="seesr-count")
        button = gr.Button(text("button.plot"), elem_id=f"{form.tab}-plot-submit")

    def tell(*values: Any) -> str:
        given = dict(zip([f"plot_{axis}{end}" for axis in AXES for end in ("", "_values")], values, strict=True))
        try:
            plot = Plot.of(given)
            _check_count(page, plot.count)
        except SeeSRError as failure:
            sentence = str(failure)
            return f'<p class="wrong">{html.escape(sentence[:1].upper() + sentence[1:])}</p>' if any(values) else ""
        return f'<p role="status">{html.escape(text("word.cells", count=plot.count))}</p>'

    for component in fields:
        component.change(tell, fields, count, trigger_mode="always_last", **HIDDEN)

    def label(name: str, value: str) -> str:
        return value if name == REPLACE else f"{label_of(page, name)}: {value}"

    def connect(request_of: Callable[[dict[str, Any]], GenerationRequest]) -> None:
        form_names, inputs = list(form.fields), [*form.fields.values()]

        def submit(request: gr.Request, *values: Any) -> tuple[Any, Any, str]:
            user, given = user_of(request), dict(zip(form_names, values, strict=True))
            try:
                plot = Plot.of(given)
                _check_count(page, plot.count)
                ids = page.submit_all(user, [request_of(cell) for cell in plot.cells(given)])
            except SeeSRError as failure:
                return gr.skip(), gr.skip(), form.told(failure)
            jobs, drawn = newest_first(ids, given["jobs"]), plot.as_json(label, ids)
            form.keep(user, given | {"jobs": jobs, "plot": drawn})
            return jobs, drawn, ""

        outputs = [form.fields["jobs"], form.fields["plot"], form.error]
        button.click(submit, inputs, outputs, js=form.collect, concurrency_limit=None, **HIDDEN)

    return connect


def label_of(page: Page, name: str) -> str:
    """What an axis is called."""
    if name == REPLACE:
        return page.text("word.replace")
    return page.text.get(f"field.{name}", name.replace("_", " ").capitalize())


def _check_count(page: Page, count: int) -> None:
    """Whether a plot of so many cells may be asked for.

    Raises:
        InputError: it has no axis, or too many cells.
    """
    if not count:
        raise InputError(page.text("error.no_axis"))
    limits = page.studio.settings.limits
    limit = min(value for value in (MAX_SHOWN, limits.user_queue_length, limits.queue_length) if value is not None)
    if count > limit:
        raise InputError(page.text("error.many_cells", count=count, limit=limit))
