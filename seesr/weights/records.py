"""Small JSON files of records by name, which several processes may change, and that of the licences that were accepted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from seesr.files import atomic_write

Record = dict[str, Any]


@dataclass(frozen=True)
class Records:
    """A JSON file of objects by name; what is damaged in it counts as missing."""

    path: Path

    def read(self) -> dict[str, Record]:
        """All records; none where there is no file."""
        try:
            records = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        entries = records.items() if isinstance(records, dict) else ()
        return {name: record for name, record in entries if isinstance(record, dict)}

    def update(self, changes: Mapping[str, Record | None]) -> None:
        """Sets these records; those that are None are taken out.

        Raises:
            OSError: the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            records = {**self.read(), **changes}
            with atomic_write(self.path) as temporary:
                kept = {name: record for name, record in sorted(records.items()) if record is not None}
                temporary.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Licences:
    """Which licences were accepted: for the upscaling weights and all other models together."""

    records: Records

    def is_accepted(self, name: str, page: str) -> bool:
        """Whether this licence was accepted, as it stands at this page."""
        return self.records.read().get(name, {}).get("page") == page

    def accept(self, name: str, page: str, by: str) -> None:
        """Records that `by`, a user, accepts it.

        Raises:
            OSError: the record cannot be written.
        """
        if not self.is_accepted(name, page):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.records.update({name: {"page": page, "accepted": now, "by": by}})
