"""Writes the tables of options in docs/ from seesr/options.py and seesr/generation/options.py.

python -m scripts.make_options_table            writes them
python -m scripts.make_options_table --check    exit code 1 where one is not current
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from seesr.generation.options import GenerationOptions
from seesr.options import OptionModel, Options, ReadOptions, SaveOptions

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- options: written by scripts/make_options_table.py -->", "<!-- end of options -->"
SERVICE_NAMES = {
    "steps": "num_inference_steps",
    "format": "output_format",
    "quality": "output_quality",
    "metadata": "keep_metadata",
}
NOT_IN_SERVICE = ("max_side",)
NO_FLAG = ("prompt", "styles", "loras", "outpaint")
"""Options that the command takes otherwise."""


def upscaling_table() -> str:
    """The options of `seesr upscale`."""
    lines = ["| option | default | values | in the service | what it does |", "|---|---|---|---|---|"]
    for model in (Options, ReadOptions, SaveOptions):
        for name, field in model.model_fields.items():
            flag, default, values = _cells(model, name, field)
            service = "" if name in NOT_IN_SERVICE else f"`{SERVICE_NAMES.get(name, name)}`"
            lines.append(f"| `{flag}` | {default} | {values} | {service} | {field.description} |")
    return "\n".join(lines)


def generation_table() -> str:
    """The options of `seesr generate`."""
    lines = ["| option | default | values | what it does |", "|---|---|---|---|"]
    for name, field in GenerationOptions.model_fields.items():
        if name not in NO_FLAG:
            flag, default, values = _cells(GenerationOptions, name, field)
            lines.append(f"| `{flag}` | {default} | {values} | {field.description} |")
    return "\n".join(lines)


def sdapi_table() -> str:
    """The fields of A1111's API."""
    from seesr.studio.api.sdapi.fields import REQUESTS, Body, support_of

    lines = ["| request | field | support | meaning |", "|---|---|---|---|"]
    for endpoint, request in REQUESTS.items():
        base = request.__mro__[1]
        inherited = base.model_fields.keys() if issubclass(base, Body) else {}
        for name, field in request.model_fields.items():
            if name not in inherited:
                lines.append(f"| {endpoint} | `{name}` | {support_of(request, name)} | {field.description} |")
    return "\n".join(lines)


PAGES = {
    DOCS / "command-line.md": upscaling_table,
    DOCS / "generation.md": generation_table,
    DOCS / "studio-a1111.md": sdapi_table,
}


def _cells(model: type[OptionModel], name: str, field: FieldInfo) -> tuple[str, str, str]:
    """Flag, default and values."""
    flag = "--" + name.replace("_", "-")
    low, high = model.bounds(name)
    values = ", ".join(map(str, model.choices(name))) or ("" if low is None or high is None else f"{low:g} to {high:.10g}")
    default = "" if field.default is None else f"{field.default}"
    if field.annotation is bool:
        flag, values, default = f"{flag}`, `--no-{flag[2:]}", "on, off", "on" if field.default else "off"
    return flag, default, values


def with_table(page: str, table: str) -> str:
    """The page with a current table."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main() -> None:
    for path, table in PAGES.items():
        page = path.read_text(encoding="utf-8")
        current = with_table(page, table())
        if "--check" in sys.argv and page != current:
            sys.exit(f"{path} is not current: run python -m scripts.make_options_table")
        path.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
