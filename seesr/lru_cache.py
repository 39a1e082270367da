"""A small cache of results with least-recently-used eviction."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class LRUCache(Generic[T]):
    """Keeps the most recently used results whose costs add up to at most `size`, by default as many; the last one always."""

    def __init__(self, size: int, cost: Callable[[T], int] = lambda _: 1) -> None:
        self.size, self.cost = size, cost
        self._results: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of `key`, computed if it is not cached."""
        if key not in self._results:
            self._results[key] = compute()
        self._results.move_to_end(key)
        while len(self._results) > 1 and sum(map(self.cost, self._results.values())) > self.size:
            self._results.popitem(last=False)
        return self._results[key]

    def clear(self) -> None:
        self._results.clear()

    def __len__(self) -> int:
        return len(self._results)
