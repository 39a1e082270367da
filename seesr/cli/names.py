"""Names of results in a folder: a template with fields in braces."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from seesr.errors import OptionError
from seesr.options import Options

FIELDS = ("stem", "source", "suffix", "scale", "max_side", "seed")
"""What is known before the work: the input's name without its suffix, and its suffix; the result's suffix; options."""


@dataclass(frozen=True)
class ResultNames:
    """Makes the name of each result."""

    template: str = "{stem}{suffix}"
    scale: str | None = None
    max_side: str | None = None
    seed: str | None = None

    def __post_init__(self) -> None:
        """Raises OptionError for a template with an unknown field, or one that is not known before the work."""
        said = f"--name is {self.template!r}"
        try:
            fields = [part[1:] for part in Formatter().parse(self.template) if part[1] is not None]
        except ValueError as error:
            raise OptionError(f"{said}: {error}; write {{{{ and }}}} for braces in a name.") from None
        if not self.template or {os.sep, os.altsep} & set(self.template):
            raise OptionError(f"{said}; give the name of a file, without folders.")
        for field, spec, conversion in fields:
            if field not in FIELDS or spec or conversion:
                raise OptionError(f"{said}; valid fields: {', '.join(f'{{{name}}}' for name in FIELDS)}.")
            if field in ("scale", "max_side", "seed") and getattr(self, field) is None:
                hint = "--max-side decides; use {max_side}" if field == "scale" else f"give --{field.replace('_', '-')}"
                raise OptionError(f"{said}, but {{{field}}} is not known before the work: {hint}.")

    @classmethod
    def of(cls, template: str | None, options: Options) -> ResultNames:
        """The names that `--name` asks for, with these options."""
        if template is None:
            return cls()
        known = {"max_side": options.max_side, "seed": options.seed}
        values = {name: None if value is None else str(value) for name, value in known.items()}
        return cls(template, scale=None if options.max_side else f"{options.scale:g}", **values)

    def name(self, source: Path, suffix: str, with_source: bool = False) -> str:
        """The name of the result of `source`; `with_source` adds the suffix of `source` to its stem, as in `a_jpg`."""
        kind = source.suffix.removeprefix(".")
        stem = f"{source.stem}_{kind}" if with_source and kind else source.stem
        values = {"scale": self.scale, "max_side": self.max_side, "seed": self.seed}
        return self.template.format(stem=stem, source=kind, suffix=suffix, **values)
