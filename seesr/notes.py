"""What a user would want to know of one picture: how its input was handled, what had to be done otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Notes:
    """Sentences in the order in which they came, each once."""

    def __init__(self, sentences: Iterable[str] = ()) -> None:
        self._sentences = dict.fromkeys(sentences)

    def add(self, *sentences: str) -> None:
        self._sentences |= dict.fromkeys(sentences)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sentences)


def add_to_all(notes: Iterable[Notes], sentence: str) -> None:
    """Notes the sentence for each of several pictures that are worked on together."""
    for of_picture in notes:
        of_picture.add(sentence)
