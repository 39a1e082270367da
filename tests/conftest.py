"""What many tests share: an environment of their own, the embedded model, loaded once, and real pictures."""

# ruff: noqa: E402

from __future__ import annotations

import os
import re

# Before all other imports: libraries read some of these variables then.
STRAY = re.compile("(?!SEESR_REFERENCE$)(SEESR|HF)_.*|(FORCE|NO)_COLOR|(http|https|all|no)_proxy", re.IGNORECASE)
for name in filter(STRAY.fullmatch, [*os.environ]):
    del os.environ[name]
os.environ |= {"COLUMNS": "120", "NO_PROXY": "*"}

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image, ImageCms

from seesr import Upscaler, cli

# `pytest --hypothesis-profile=long` tries ten times as much.
settings.register_profile("long", max_examples=1000)


def cases(count: int) -> int:
    """What a test gives as `max_examples` that wants `count` cases, or ten times as many in a long run."""
    return count * 10 if settings.get_current_profile_name() == "long" else count


IMAGES = Path(__file__).parent / "images"
SCRIPTS = Path(__file__).parent.parent / "scripts"


def turned_profile() -> bytes:
    """An ICC profile that is sRGB's, but for red and blue, which have each other's place."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return content.replace(b"rXYZ", b"_XYZ").replace(b"bXYZ", b"rXYZ").replace(b"_XYZ", b"bXYZ")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees or changes what a developer has fetched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEESR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def upscaler() -> Upscaler:
    return Upscaler.load(device="cpu", dtype="float32")


@pytest.fixture
def small_photo() -> Image.Image:
    """48x40 pixels of a real photograph."""
    return Image.open(IMAGES / "chelsea.png").convert("RGB").crop((150, 80, 198, 120))


Run = Callable[..., "Outcome"]


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What a program's `main` leaves behind, with these arguments."""

    def run(main: Callable[[], None], *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def seesr(run_main: Run) -> Run:
    return functools.partial(run_main, cli.main)
