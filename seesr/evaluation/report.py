"""Figures as a table, as JSON, and as a page with crops of the best and the worst pictures side by side."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from seesr.evaluation import BICUBIC, OURS
from seesr.evaluation.evaluate import Figures, Row, means

SHOWN = 10
STYLE = """
body { font: 14px system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .8em; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f3f3f3 }
figure { display: inline-block; margin: 0 .5em 1em 0 } figcaption { font-size: 12px }
img { display: block; image-rendering: pixelated }
"""


def as_table(rows: list[Row]) -> Table:
    """A line for each picture and method, the means last."""
    average = means(rows)
    names = list(average[OURS])
    table = Table("picture", "method", *names)
    for title, figures in [*((row.name, row.figures) for row in rows), ("mean", average)]:
        for method, values in figures.items():
            cells = (f"{values[name]:.3f}" if name in values else "" for name in names)
            table.add_row(title, method, *cells, style="bold" if title == "mean" else None)
    return table


def as_record(rows: list[Row], settings: dict[str, Any], complete: bool) -> dict[str, Any]:
    """Everything, for JSON: a figure that a picture has not (NIQE of a small one), or that is infinite, is null."""
    pictures = {row.name: row.figures for row in rows}
    by_method = {name: {method: _finite(values) for method, values in row.items()} for name, row in pictures.items()}
    return {
        "settings": settings,
        "complete": complete,
        "mean": {method: _finite(values) for method, values in means(rows).items()},
        "pictures": by_method,
    }


def _finite(figures: Figures) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in figures.items()}


def as_page(rows: list[Row], settings: dict[str, Any]) -> str:
    """A page of HTML that needs no other file."""
    ranked = sorted(rows, key=_gain)
    best, worst = ranked[:SHOWN], ranked[::-1][: max(0, min(SHOWN, len(ranked) - SHOWN))]
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>SeeSR evaluation</title><style>{STYLE}</style>",
        f"<h1>{len(rows)} pictures</h1>",
        f"<p>{html.escape(', '.join(f'{name}: {value}' for name, value in settings.items()))}</p>",
        _html_table(means(rows)),
        "<h2>Best, compared with bicubic</h2>",
        *(_html_row(row) for row in best),
        "<h2>Worst</h2>" if worst else "",
        *(_html_row(row) for row in worst),
    ]
    return "\n".join(parts)


def _gain(row: Row) -> float:
    """The output's distance over bicubic's: ST-LPIPS where it was measured, else 1 - SSIM."""
    ours, bicubic = row.figures[OURS], row.figures[BICUBIC]
    if "st_lpips" in ours:
        return ours["st_lpips"] / max(bicubic["st_lpips"], 1e-9)
    return (1 - ours["ssim_y"]) / max(1 - bicubic["ssim_y"], 1e-9)


def _html_table(figures: dict[str, Figures]) -> str:
    names = list(figures[OURS])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *names])
    lines = []
    for method, values in figures.items():
        cells = "".join(f"<td>{values[name]:.3f}</td>" if name in values else "<td></td>" for name in names)
        lines.append(f"<tr><td>{html.escape(method)}</td>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _html_row(row: Row) -> str:
    figures = "".join(_html_figure(name, image, row.figures.get(name)) for name, image in row.crops.items())
    return f"<h3>{html.escape(row.name)}</h3>{figures}"


def _html_figure(name: str, image: Image.Image, figures: Figures | None) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    caption = html.escape(name)
    if figures:
        shown = (f"{key} {figures[key]:.3f}" for key in ("psnr_y", "st_lpips") if key in figures)
        caption += f"<br>{', '.join(shown)}"
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<figure><img alt='' src='data:image/png;base64,{data}'><figcaption>{caption}</figcaption></figure>"
