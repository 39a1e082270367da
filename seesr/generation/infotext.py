"""Infotext: the settings of a picture as the AUTOMATIC1111 web UI writes them, which other programs read.

    a cat
    Negative prompt: dogs
    Steps: 20, Sampler: Euler a, Seed: 1, Size: 128x128

Values that hold a comma, a colon or a line break are JSON strings. The form is ambiguous where a prompt has a line that
looks like another part; such a prompt is written with that line changed, and once more, exactly, as a value of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

NEGATIVE = "Negative prompt:"
EXACT_KEYS = ("SeeSR prompt", "SeeSR negative prompt")
"""Keys of prompts that cannot stand as they are."""
MIN_KEYS = 3
"""A last line with fewer keys belongs to the prompt."""
_KEY = re.compile(r"\s{0,9}(\w[\w \-/]{1,60}):\s{0,9}")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])+"(?=,|$)')
_SPECIAL = re.compile(r"[,:\n\r]")


@dataclass(frozen=True)
class Infotext:
    """The parts of an infotext."""

    prompt: str = ""
    negative_prompt: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Infotext:
        """Reads what A1111 and compatible programs write; what is not understood becomes part of the prompt."""
        *lines, last = text.strip("\n").split("\n") if text.strip() else [""]
        found = list(_parameters(last))
        if len(found) < MIN_KEYS:
            lines, found = [*lines, last], []
        parameters = {key.strip(): _unquoted(value) for key, value in found}
        prompts: tuple[list[str], list[str]] = ([], [])
        part = 0
        for line in lines:
            if line.strip().startswith(NEGATIVE):
                part, line = 1, line.strip().removeprefix(NEGATIVE).removeprefix(" ")
            prompts[part].append(line)
        texts = ["\n".join(prompt) for prompt in prompts]
        exact = [parameters.pop(key, text) for key, text in zip(EXACT_KEYS, texts, strict=True)]
        return cls(exact[0], exact[1], parameters)

    def __str__(self) -> str:
        text = self._write(self.prompt, self.negative_prompt, self.parameters)
        if Infotext.parse(text) == self:
            return text
        exact = dict(zip(EXACT_KEYS, (self.prompt, self.negative_prompt), strict=True))
        plain = [" ".join(prompt.replace(NEGATIVE, "Negative prompt :").split()) for prompt in exact.values()]
        return self._write(plain[0], plain[1], self.parameters | exact)

    @staticmethod
    def _write(prompt: str, negative_prompt: str, parameters: Mapping[str, str]) -> str:
        lines = [prompt] if prompt else []
        if negative_prompt:
            lines.append(f"{NEGATIVE} {negative_prompt}")
        lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in parameters.items()))
        return "\n".join(lines)


def _parameters(line: str) -> Iterator[tuple[str, str]]:
    """(key, value) of each part between commas that is such a pair, in time proportional to the line."""
    place = 0
    while place < len(line):
        key = _KEY.match(line, place)
        quoted = _QUOTED.match(line, key.end()) if key else None
        end = quoted.end() if quoted else line.find(",", key.end() if key else place)
        end = len(line) if end < 0 else end
        if key:
            yield key[1], line[key.end() : end]
        place = end + 1


def _quoted(value: str) -> str:
    needs_quotes = _SPECIAL.search(value) or value != value.strip() or value.startswith('"') or not value
    return json.dumps(value, ensure_ascii=False) if needs_quotes else value


def _unquoted(value: str) -> str:
    value = value.strip()
    if value.startswith('"') and value.endswith('"'):
        try:
            decoded = json.loads(value)
        except json.JSONDecodeError:
            return value
        return decoded if isinstance(decoded, str) else value
    return value
