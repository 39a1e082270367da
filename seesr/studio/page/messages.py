"""The page's words by language, from `messages/*.toml`; what a language lacks is said in English."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("messages")
ENGLISH = "en"


@dataclass(frozen=True)
class Messages:
    """The words of one language."""

    language: str
    words: dict[str, str]

    @classmethod
    def read(cls, language: str, folder: Path = FOLDER) -> Messages:
        """Those of a language, by keys such as `field.steps`."""
        return cls(language, _read(folder / f"{ENGLISH}.toml") | _read(folder / f"{language}.toml"))

    def __call__(self, key: str, **values: object) -> str:
        """A message with its values in place.

        Raises:
            KeyError: there is none of this key in English either.
        """
        return self.words[key].format(**values)

    def get(self, key: str, default: str) -> str:
        """A message that need not be there."""
        return self.words.get(key, default)


def languages(folder: Path = FOLDER) -> list[str]:
    """Codes of the languages, English first."""
    return sorted((path.stem for path in folder.glob("*.toml")), key=lambda code: (code != ENGLISH, code))


def preferred_language(accepted: str, known: list[str]) -> str:
    """The language that a browser asks for by the header Accept-Language (RFC 9110, 12.5.4); else English."""
    weighted = list[tuple[float, str]]()
    for part in accepted.split(","):
        code, _, parameter = part.strip().partition(";")
        weight = parameter.strip().removeprefix("q=") or "1"
        weighted.append((float(weight) if weight.replace(".", "", 1).isdecimal() else 0.0, code.lower().partition("-")[0]))
    return next((code for weight, code in sorted(weighted, key=lambda one: -one[0]) if weight and code in known), ENGLISH)


def _read(path: Path) -> dict[str, str]:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {f"{table}.{name}": text for table, words in tables.items() for name, text in words.items()}
