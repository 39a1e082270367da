"""Drawings for the cleaner: flat areas, outlines, curves, gradients and letters, of which photographs have few.

They stand for cartoons, slides and screenshots; each is drawn anew by chance.
"""

from __future__ import annotations

import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS = string.ascii_letters + string.digits + "  .,:;!?&%+-=()"


def drawing(side: int, rng: np.random.Generator) -> Image.Image:
    """RGB, `side` x `side`; edges have stairs of a pixel, which go as it is reduced."""
    image = _ground(side, rng)
    draw = ImageDraw.Draw(image)
    ink = (0, 0, 0) if rng.random() < 0.6 else _colour(rng)
    kinds = (_shape, _shape, _curve, _stripes, _text, _text)
    for _ in range(int(rng.integers(3, 16))):
        kinds[rng.integers(len(kinds))](draw, side, ink, rng)
    if rng.random() < 0.7:
        image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, fillcolor=_colour(rng))
    return image


def _ground(side: int, rng: np.random.Generator) -> Image.Image:
    """One colour, or a passage from one to another."""
    first, second = (np.array(_colour(rng), np.float32) for _ in range(2))
    if rng.random() < 0.5:
        red, green, blue = (int(value) for value in first)
        return Image.new("RGB", (side, side), (red, green, blue))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    share = (0.5 + 0.7 * (x * np.cos(angle) + y * np.sin(angle))).clip(0, 1)[..., None]
    return Image.fromarray((first + share * (second - first)).round().astype(np.uint8))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """White, a grey, or any."""
    kind = rng.random()
    if kind < 0.25:
        return (255, 255, 255)
    if kind < 0.4:
        grey = int(rng.integers(256))
        return grey, grey, grey
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _width(side: int, rng: np.random.Generator) -> int:
    return max(1, int(side * 10 ** rng.uniform(-2.3, -1.4)))


def _shape(draw: ImageDraw.ImageDraw, side: int, ink: tuple[int, int, int], rng: np.random.Generator) -> None:
    """An ellipse, a rectangle or a polygon, filled, most with an outline."""
    size = side * rng.uniform(0.08, 0.6, 2)
    left, top = rng.uniform(-0.2, 1, 2) * side
    box = (left, top, left + size[0], top + size[1])
    style = {"fill": _colour(rng), "outline": ink, "width": _width(side, rng) if rng.random() < 0.7 else 0}
    kind = rng.integers(3)
    if kind == 0:
        draw.ellipse(box, **style)
    elif kind == 1:
        draw.rectangle(box, **style)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        x, y = left + size[0] * (0.5 + 0.5 * np.cos(angles)), top + size[1] * (0.5 + 0.5 * np.sin(angles))
        draw.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), **style)


def _curve(draw: ImageDraw.ImageDraw, side: int, ink: tuple[int, int, int], rng: np.random.Generator) -> None:
    """One to eight lines side by side, as hair is drawn, each a cubic Bezier curve."""
    corners, shift = rng.uniform(-0.1, 1.1, (4, 2)) * side, rng.normal(0, 0.03, 2) * side
    t = np.linspace(0, 1, 60)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    width = _width(side, rng)
    for number in range(int(rng.integers(1, 9)) if rng.random() < 0.4 else 1):
        points = weights @ (corners + number * shift)
        draw.line([tuple(point) for point in points.tolist()], fill=ink, width=width, joint="curve")


def _stripes(draw: ImageDraw.ImageDraw, side: int, ink: tuple[int, int, int], rng: np.random.Generator) -> None:
    """Parallel lines in a part of the picture."""
    left, top = rng.uniform(0, 0.7, 2) * side
    length, distance, width = side * rng.uniform(0.1, 0.4), side * rng.uniform(0.015, 0.06), _width(side, rng)
    upright = rng.random() < 0.5
    for offset in np.arange(0, side * rng.uniform(0.1, 0.4), max(distance, 1.5 * width)):
        start, end = (left + offset, top), (left + offset, top + length)
        if not upright:
            start, end = (left, top + offset), (left + length, top + offset)
        draw.line([start, end], fill=ink, width=width)


def _text(draw: ImageDraw.ImageDraw, side: int, ink: tuple[int, int, int], rng: np.random.Generator) -> None:
    """A few lines of letters of chance."""
    font = ImageFont.load_default(side * 10 ** rng.uniform(-1.6, -0.5))
    text = "\n".join("".join(rng.choice(list(LETTERS), int(rng.integers(2, 24)))) for _ in range(int(rng.integers(1, 5))))
    position = tuple((rng.uniform(-0.1, 0.7, 2) * side).tolist())
    outline = int(rng.random() < 0.15) * _width(side, rng)
    draw.multiline_text(position, text, fill=ink, font=font, stroke_width=outline, stroke_fill=_colour(rng))
