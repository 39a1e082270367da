"""A small memory of what was computed last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class LRUCache(Generic[T]):
    """The last `size` results, by key; the one that was not asked for the longest goes first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._found: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        if key not in self._found:
            self._found[key] = compute()
        self._found.move_to_end(key)
        while len(self._found) > self.size:
            self._found.popitem(last=False)
        return self._found[key]

    def clear(self) -> None:
        self._found.clear()

    def __len__(self) -> int:
        return len(self._found)
