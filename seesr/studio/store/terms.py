"""What pictures are found by: words of the prompt, tags, LoRAs, the checkpoint."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from seesr.studio.records import TermKind

MAX_LENGTH, MAX_WORDS = 64, 1000
"""Characters of a term, and words of a prompt, that are kept."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|\w+")
"""Chinese and Japanese are written without spaces: there each character is a word."""
_NETWORK = re.compile(r"<[^<>]*>")
"""`<lora:name:0.8>` in a prompt."""


def words(text: str) -> list[str]:
    """The words of a text, each once, without case."""
    found = (fold(word) for word in _WORD.findall(unicodedata.normalize("NFKC", text)))
    return list(dict.fromkeys(found))[:MAX_WORDS]


def fold(name: str) -> str:
    """A name as a term, without case."""
    return unicodedata.normalize("NFKC", name).casefold().replace("\0", "")[:MAX_LENGTH]


def picture_terms(settings: Mapping[str, Any], tags: Iterable[str]) -> list[tuple[TermKind, str]]:
    """The terms of a picture; settings of strangers may hold anything."""
    prompt, loras, checkpoint = (settings.get(name) for name in ("prompt", "loras", "weights"))
    terms: dict[TermKind, list[str]] = {
        "word": words(_NETWORK.sub(" ", prompt)) if isinstance(prompt, str) else [],
        "tag": [fold(tag) for tag in tags],
        "lora": [fold(name) for name in loras] if isinstance(loras, dict) else [],
        "checkpoint": [fold(checkpoint)] if isinstance(checkpoint, str) else [],
    }
    return [(kind, term) for kind, names in terms.items() for term in dict.fromkeys(names) if term]
