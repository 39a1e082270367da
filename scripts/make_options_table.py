"""Writes the table of options in docs/command-line.md from seesr/options.py.

python -m scripts.make_options_table            writes it
python -m scripts.make_options_table --check    exit code 1 where it is not current
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from seesr.options import Options, SaveOptions

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"
BEGIN, END = "<!-- options: written by scripts/make_options_table.py -->", "<!-- end of options -->"
SERVICE_NAMES = {
    "steps": "num_inference_steps",
    "format": "output_format",
    "quality": "output_quality",
    "metadata": "keep_metadata",
}
NOT_IN_SERVICE = ("max_side",)


def table() -> str:
    """The table between the markers."""
    lines = ["| option | default | values | in the service | what it does |", "|---|---|---|---|---|"]
    for model in (Options, SaveOptions):
        lines += [_row(model, name, field) for name, field in model.model_fields.items()]
    return "\n".join(lines)


def _row(model: type[Options] | type[SaveOptions], name: str, field: FieldInfo) -> str:
    flag = "--" + name.replace("_", "-")
    low, high = model.bounds(name)
    values = ", ".join(model.choices(name)) or ("" if low is None or high is None else f"{low:g} to {high:.10g}")
    default = "" if field.default is None else f"{field.default}"
    if field.annotation is bool:
        flag, values, default = f"{flag}`, `--no-{flag[2:]}", "on, off", "on" if field.default else "off"
    service = "" if name in NOT_IN_SERVICE else f"`{SERVICE_NAMES.get(name, name)}`"
    return f"| `{flag}` | {default} | {values} | {service} | {field.description} |"


def with_table(page: str) -> str:
    """The page with a current table."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    current = with_table(page)
    if "--check" in sys.argv:
        sys.exit(0 if page == current else f"{PAGE} is not current: run python -m scripts.make_options_table")
    PAGE.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
