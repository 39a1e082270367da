"""Reports metrics as a table, as JSON, and as an HTML page with crops of the best and worst pictures."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from seesr.evaluation import BICUBIC, OURS
from seesr.evaluation.evaluate import MetricValues, PictureMetrics, mean_metrics

MAX_SHOWN = 10
"""Best pictures on the page, and worst pictures."""
STYLE = """
body { font: 14px system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .8em; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f3f3f3 }
figure { display: inline-block; margin: 0 .5em 1em 0 } figcaption { font-size: 12px }
img { display: block; image-rendering: pixelated }
"""


def as_table(pictures: list[PictureMetrics]) -> Table:
    """A row for each picture and method, then the means."""
    means = mean_metrics(pictures)
    names = list(means[OURS])
    table = Table("picture", "method", *names)
    for title, by_method in [*((picture.name, picture.by_method) for picture in pictures), ("mean", means)]:
        for method, values in by_method.items():
            cells = (f"{values[name]:.3f}" if name in values else "" for name in names)
            table.add_row(title, method, *cells, style="bold" if title == "mean" else None)
    return table


def as_record(pictures: list[PictureMetrics], settings: dict[str, Any], complete: bool) -> dict[str, Any]:
    """All metrics, ready for JSON; values that are NaN or infinite become null."""
    return {
        "settings": settings,
        "complete": complete,
        "mean": _nullable(mean_metrics(pictures)),
        "pictures": {picture.name: _nullable(picture.by_method) for picture in pictures},
    }


def _nullable(by_method: dict[str, MetricValues]) -> dict[str, dict[str, float | None]]:
    return {
        method: {name: value if np.isfinite(value) else None for name, value in values.items()}
        for method, values in by_method.items()
    }


def as_page(pictures: list[PictureMetrics], settings: dict[str, Any]) -> str:
    """A self-contained HTML page."""
    ranked = sorted(pictures, key=_error_ratio)
    best, worst = ranked[:MAX_SHOWN], ranked[::-1][: max(0, min(MAX_SHOWN, len(ranked) - MAX_SHOWN))]
    sections = [
        f"<!doctype html><meta charset='utf-8'><title>SeeSR evaluation</title><style>{STYLE}</style>",
        f"<h1>{len(pictures)} pictures</h1>",
        f"<p>{html.escape(', '.join(f'{name}: {value}' for name, value in settings.items()))}</p>",
        _html_table(mean_metrics(pictures)),
        "<h2>Best, compared with bicubic</h2>",
        *(_html_picture(picture) for picture in best),
        "<h2>Worst</h2>" if worst else "",
        *(_html_picture(picture) for picture in worst),
    ]
    return "\n".join(sections)


def _error_ratio(picture: PictureMetrics) -> float:
    """The error of SeeSR's output over that of bicubic: ST-LPIPS where it was computed, else 1 - SSIM."""
    ours, bicubic = picture.by_method[OURS], picture.by_method[BICUBIC]
    if "st_lpips" in ours:
        return ours["st_lpips"] / max(bicubic["st_lpips"], 1e-9)
    return (1 - ours["ssim_y"]) / max(1 - bicubic["ssim_y"], 1e-9)


def _html_table(by_method: dict[str, MetricValues]) -> str:
    names = list(by_method[OURS])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *names])
    rows = []
    for method, values in by_method.items():
        cells = "".join(f"<td>{values[name]:.3f}</td>" if name in values else "<td></td>" for name in names)
        rows.append(f"<tr><td>{html.escape(method)}</td>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _html_picture(picture: PictureMetrics) -> str:
    figures = "".join(_html_figure(name, image, picture.by_method.get(name)) for name, image in picture.crops.items())
    return f"<h3>{html.escape(picture.name)}</h3>{figures}"


def _html_figure(name: str, image: Image.Image, values: MetricValues | None) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    caption = html.escape(name)
    if values:
        shown = (f"{key} {values[key]:.3f}" for key in ("psnr_y", "st_lpips") if key in values)
        caption += f"<br>{', '.join(shown)}"
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<figure><img alt='' src='data:image/png;base64,{data}'><figcaption>{caption}</figcaption></figure>"
