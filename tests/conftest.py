"""What many tests share: the embedded model, loaded once, and real pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from seesr import Upscaler

# `pytest --hypothesis-profile=long` tries ten times as much.
settings.register_profile("long", max_examples=1000)

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="session")
def upscaler() -> Upscaler:
    return Upscaler.load(device="cpu", dtype="float32")


@pytest.fixture
def small_photo() -> Image.Image:
    """48x40 pixels of a real photograph."""
    return Image.open(IMAGES / "chelsea.png").convert("RGB").crop((150, 80, 198, 120))
