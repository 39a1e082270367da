"""`seesr tags` and `seesr info`."""

from __future__ import annotations

import json
from pathlib import Path

from helpers import Run

from seesr import Upscaler
from seesr.images.encoded import ImageSource
from seesr.tagging.prompt import Tag


class Certain(Upscaler):
    """Sees the same in every picture."""

    def tags(self, image: ImageSource) -> list[Tag]:
        return [Tag("cat", 0.75), Tag("fur", 0.5), Tag("eye", 0.875)]


def test_tags_and_info(seesr: Run, upscaler: Upscaler, photo_file: Path) -> None:
    def load(*_: object, **__: object) -> Upscaler:
        return Certain(upscaler.engine, upscaler.weights)

    listed, told = seesr("tags", photo_file, "--json", load=load), seesr("tags", photo_file, "--device", "cpu", load=load)
    assert [(tag["tag"], tag["confidence"]) for tag in json.loads(listed.out)] == [
        ("eye", 0.875),
        ("cat", 0.75),
        ("fur", 0.5),
    ]
    assert told.out.splitlines() == ["0.88  eye", "0.75  cat", "0.50  fur"]
    assert "weights: tiny (embedded), on cpu" in told.err
    assert seesr("tags", photo_file).code == 0
    shown = seesr("info")
    assert shown.code == 0
    for word in ("seesr", "torch 2.13.0", "device", "dtype", "GiB free", "tiny (embedded)"):
        assert word in shown.out
