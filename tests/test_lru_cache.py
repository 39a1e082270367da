"""What is remembered and what is forgotten."""

from __future__ import annotations

from seesr.lru_cache import LRUCache


def test_recent_forgets_what_was_not_asked_for_the_longest() -> None:
    recent, computed = LRUCache(2), []

    def ask(key: str) -> str:
        return recent.get(key, lambda: computed.append(key) or key.upper())

    assert [ask(key) for key in "abacb"] == list("ABACB")
    assert computed == ["a", "b", "c", "b"]
    recent.clear()
    assert len(recent) == 0
