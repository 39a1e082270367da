"""Colour profiles of pictures: used, carried over, or named where they cannot be used."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from helpers import MODES, encoded, is_close, photo_in_mode, swapped_profile
from PIL import Image

from seesr.images.finish import finish
from seesr.images.read import read_picture
from seesr.images.sizes import Sizes
from seesr.options import Limits

LIMITS = Limits()
KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


def test_colours_come_from_the_profile_and_go_back_to_it() -> None:
    orange = Image.new("RGB", (8, 8), (200, 90, 10))
    orange.info["icc_profile"] = swapped_profile()
    picture = read_picture(orange, LIMITS)
    assert is_close(picture.rgb, Image.new("RGB", (8, 8), (10, 90, 200)), 1)
    result = finish(picture.rgb, picture, Sizes((8, 8), (16, 16), (16, 16), (16, 16), 0), 0)
    assert is_close(result, orange.resize((16, 16)), 1)
    assert result.info["icc_profile"] == picture.profile == swapped_profile()


def test_a_profile_that_cannot_be_used_is_ignored_and_named() -> None:
    photo = photo_in_mode(8, 8)
    photo.info["icc_profile"] = b"no profile"
    picture = read_picture(photo, LIMITS)
    assert [text.partition(" (")[0] for text in picture.notes] == [
        "the input's colour profile cannot be used and was ignored"
    ]
    assert picture.profile is None
    assert picture.rgb.tobytes() == photo.tobytes()


def linear_grey() -> bytes:
    """The least ICC profile of a grey whose numbers are light."""
    white = struct.pack(">3i", 63190, 65536, 54061)
    tags = {
        b"desc": b"desc" + struct.pack(">II5s", 0, 5, b"grey") + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none",
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"kTRC": b"curv" + bytes(8),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", 132 + len(table) - 4 + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + white
    return head.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_a_grey_profile_holds_for_every_kind_of_grey(mode: str) -> None:
    grey = photo_in_mode(40, 30, "L")
    if mode == "1":
        grey = grey.point(lambda value: 255 * (value > 128))
    transparent = {"transparency": 7} if mode == "L" else {}
    picture = read_picture(encoded(grey.convert(mode), "PNG", icc_profile=linear_grey(), **transparent), LIMITS)
    assert list(picture.notes) == ["the input's colours were converted to sRGB and stay in sRGB"]
    linear = np.asarray(grey) / 255
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(picture.rgb, dtype=float) - expected[..., None]).mean() < 1
