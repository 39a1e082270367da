"""Conversion between matrix profiles in floating point: Pillow's LittleCMS gives and takes 8 bits.

A matrix profile is three curves to linear light and a matrix to XYZ (ICC.1:2022, 8.3.3 and F.3).
"""

from __future__ import annotations

import struct

import numpy as np

from seesr.images.icc import SRGB, build_profile, to_d50_xyz

STRIP_ROWS = 64
CURVE_SAMPLES = 65536
HEADER_BYTES, MAX_TAGS = 128, 200
PARAMETERS = (1, 3, 4, 5, 7)
"""Numbers that a parametric curve of each kind has."""


def convert_samples(rgb: np.ndarray, source: bytes | None, target: bytes | None) -> np.ndarray | None:
    """`rgb`, `(H, W, 3)` float32 in 0..1, from one profile to another; None is sRGB. What does not fit is clipped.

    Of a profile of grey, all channels are equal. Returns None where one of them works by tables.
    """
    if source == target:
        return rgb
    before, after = (_Matrix.read(profile or build_profile(SRGB, None, "sRGB")) for profile in (source, target))
    if before is None or after is None:
        return None
    mix = (np.linalg.inv(after.to_xyz) @ before.to_xyz).astype(np.float32)
    result, levels = np.empty_like(rgb), np.linspace(0, 1, CURVE_SAMPLES, dtype=np.float32)
    for first in range(0, len(rgb), STRIP_ROWS):
        rows = slice(first, first + STRIP_ROWS)
        linear = np.stack([np.interp(rgb[rows, :, i], levels, before.curves[i]) for i in range(3)], axis=-1)
        mixed = (linear @ mix.T).clip(0, 1)
        for i in range(3):
            result[rows, :, i] = np.interp(mixed[..., i], after.curves[i], levels)
    return result


class _Matrix:
    """The curves and the matrix of a profile."""

    def __init__(self, to_xyz: np.ndarray, curves: list[np.ndarray]) -> None:
        self.to_xyz, self.curves = to_xyz, curves

    @classmethod
    def read(cls, profile: bytes) -> _Matrix | None:
        """None where a tag lacks, a table takes its place, or the matrix cannot be inverted."""
        try:
            tags = _tags(profile)
            if b"A2B0" in tags:
                return None
            if profile[16:20] == b"GRAY":
                return cls(to_d50_xyz(SRGB), [_curve(tags[b"kTRC"])] * 3)
            columns = [struct.unpack(">3i", tags[name + b"XYZ"][8:20]) for name in (b"r", b"g", b"b")]
            matrix = np.array(columns, np.float64).T / 65536
            curves = [_curve(tags[name + b"TRC"]) for name in (b"r", b"g", b"b")]
        except (struct.error, KeyError):
            return None
        if abs(np.linalg.det(matrix)) < 1e-6 or not all(np.isfinite(curve).all() for curve in curves):
            return None
        return cls(matrix, curves)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, HEADER_BYTES)
    entries = [struct.unpack_from(">4sII", profile, HEADER_BYTES + 4 + 12 * n) for n in range(min(count, MAX_TAGS))]
    return {name: profile[start : start + length] for name, start, length in entries}


def _curve(tag: bytes) -> np.ndarray:
    """Linear light at `CURVE_SAMPLES` numbers from 0 to 1, never falling."""
    numbers = np.linspace(0, 1, CURVE_SAMPLES)
    (count,) = struct.unpack_from(">I", tag, 8)
    if tag[:4] == b"para":
        kind = count >> 16
        if kind >= len(PARAMETERS):
            raise KeyError(kind)
        values = [value / 65536 for value in struct.unpack_from(f">{PARAMETERS[kind]}i", tag, 12)]
        curve = _parametric(numbers, kind, values)
    elif count == 0:
        curve = numbers
    elif count == 1:
        curve = numbers ** (struct.unpack_from(">H", tag, 12)[0] / 256)
    else:
        table = np.frombuffer(tag, ">u2", min(count, (len(tag) - 12) // 2), 12) / 65535
        curve = np.interp(numbers, np.linspace(0, 1, len(table)), table)
    return np.maximum.accumulate(curve.clip(0, 1))


def _parametric(x: np.ndarray, kind: int, values: list[float]) -> np.ndarray:
    """A parametric curve (ICC.1:2022, table 68)."""
    g, a, b, c, d, e, f = [*values, *(0.0,) * (7 - len(values))]
    if kind == 0:
        return x**g
    power = np.maximum(a * x + b, 0) ** g
    if kind in (1, 2):  # the third number is added to both parts
        return np.where(a * x + b >= 0, power + c, c)
    return np.where(x >= d, power + e, c * x + f)
