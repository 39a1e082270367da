"""What `pictograms` is trained on: pictograms composed to pictures, and what is said of each.

A scene has one to three things of one style on a background, each with a size and a place, and at times another colour. What
is said names them with their usual name, another or a keyword.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from PIL import Image

from scripts.training.pictogram_pictures import SIDE, Pictogram

COLOURS = {
    "white": (255, 255, 255),
    "black": (20, 20, 22),
    "grey": (140, 140, 142),
    "red": (222, 44, 44),
    "orange": (247, 140, 36),
    "yellow": (250, 215, 60),
    "green": (64, 170, 72),
    "blue": (48, 100, 220),
    "light blue": (150, 210, 250),
    "purple": (138, 70, 200),
    "pink": (250, 150, 195),
    "brown": (130, 84, 52),
}
"""Of backgrounds: sRGB."""
HUES = {"red": 0, "orange": 28, "yellow": 52, "green": 120, "blue": 220, "purple": 275, "pink": 325}
"""In degrees, that a thing can be turned to."""
PLACES = {
    "": (0.5, 0.5),
    "on the left": (0.27, 0.5),
    "on the right": (0.73, 0.5),
    "at the top": (0.5, 0.27),
    "at the bottom": (0.5, 0.73),
}
"""Of a thing's middle: shares of the width and of the height."""
SMALL, HALF, THIRD = 0.45, 0.48, 0.36
"""Of the picture's side: a small thing, one of two, one of three."""
JITTER = 10
"""Most that a background's values differ from its colour."""
HELD_OUT_PICTURES, HELD_OUT_PAIRS, HELD_OUT_COLOURS = 100, 50, 30


@dataclass(frozen=True)
class Scene:
    """One picture before it is drawn."""

    pictograms: tuple[Pictogram, ...]
    background: str = "white"
    """One of `COLOURS`."""
    other: str = ""
    """A second one, if the background has two."""
    two_tone: bool = False
    """Whether its halves are the two colours, left and right, in place of a gradient from top to bottom."""
    place: str = ""
    """Of a single thing: one of `PLACES`."""
    size: str = ""
    """Of a single thing: nothing, `small` or `large`."""
    colour: str = ""
    """One of `HUES` that a single thing is turned to."""
    jitter: tuple[int, int, int] = (0, 0, 0)
    shift: tuple[int, int] = (0, 0)
    """In pixels, of what is one of several or has a place."""

    @property
    def is_plain(self) -> bool:
        """Whether it is one pictogram as it was drawn, on white."""
        return self == Scene(self.pictograms) and len(self.pictograms) == 1


@dataclass(frozen=True)
class HeldOut:
    """What training never shows, so that it can be asked for afterwards."""

    pictures: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    """Things and styles."""
    pairs: frozenset[frozenset[str]] = field(default_factory=frozenset)
    """Two things in one picture, in any order."""
    colours: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    """Colours and things."""


class Scenes:
    """Draws scenes by lot of pictograms, of which some are held out.

    Args:
        held_out_seed: decides what is held out; None holds out nothing.
    """

    def __init__(self, pictograms: list[Pictogram], held_out_seed: int | None = 0) -> None:
        self.held_out = HeldOut() if held_out_seed is None else hold_out(pictograms, held_out_seed)
        self.shown = [p for p in pictograms if (p.thing, p.style) not in self.held_out.pictures]
        self.by_style = {style: [p for p in self.shown if p.style == style] for style in {p.style for p in pictograms}}

    @cached_property
    def colourable(self) -> list[Pictogram]:
        """Those with one hue that can be turned."""
        return [p for p in self.shown if main_hue(p.pixels) is not None and plain_names(p)]

    def plain(self) -> list[Scene]:
        """Each pictogram that is not held out, as it was drawn, on white."""
        return [Scene((pictogram,)) for pictogram in self.shown]

    def composed(self, rng: np.random.Generator) -> Scene:
        """One that is not plain."""
        kind = rng.random()
        background = self._background(rng)
        if kind < 0.10 and self.colourable:
            scene = self._recoloured(rng)
            return replace(scene, **background) if rng.random() < 0.3 else scene
        if kind < 0.45:
            return replace(Scene((self._one(rng),)), **background)
        if kind < 0.62:
            sizes, places = ("small", "small", "large"), [place for place in PLACES if place]
            size = str(rng.choice(sizes))
            place = str(rng.choice(places)) if size == "small" and rng.random() < 0.75 else ""
            scene = Scene((self._one(rng),), place=place, size=size, shift=_shift(rng, 3) if size == "small" else (0, 0))
            return replace(scene, **background) if rng.random() < 0.5 else scene
        scene = Scene(self._several(rng, 2 if kind < 0.96 else 3), shift=_shift(rng, 2))
        return replace(scene, **background) if rng.random() < 0.4 else scene

    def _one(self, rng: np.random.Generator) -> Pictogram:
        return self.shown[int(rng.integers(len(self.shown)))]

    def _several(self, rng: np.random.Generator, number: int) -> tuple[Pictogram, ...]:
        while True:
            among = self.by_style[self._one(rng).style]
            chosen = tuple(among[int(i)] for i in rng.choice(len(among), size=number, replace=False))
            things = [p.thing for p in chosen]
            together = {frozenset((first, second)) for first in things for second in things if first != second}
            if not together & self.held_out.pairs:
                return chosen

    def _recoloured(self, rng: np.random.Generator) -> Scene:
        while True:
            pictogram = self.colourable[int(rng.integers(len(self.colourable)))]
            colour = str(rng.choice(list(HUES)))
            if (colour, pictogram.thing) not in self.held_out.colours:
                return Scene((pictogram,), colour=colour)

    @staticmethod
    def _background(rng: np.random.Generator) -> dict[str, object]:
        chosen = [str(name) for name in rng.choice(list(COLOURS)[1:], size=2, replace=False)]
        kind = rng.random()
        two = {"other": chosen[1], "two_tone": bool(kind > 0.88)} if kind > 0.76 else {}
        red, green, blue = (int(value) for value in rng.integers(-JITTER, JITTER + 1, size=3))
        return {"background": chosen[0], "jitter": (red, green, blue)} | two


def hold_out(pictograms: list[Pictogram], seed: int) -> HeldOut:
    """What `seed` holds out: each thing is held out in one style at most, and pairs are of things of which none is."""
    rng = np.random.default_rng([seed, 37])
    things = list(dict.fromkeys(p.thing for p in pictograms))
    styles = sorted({p.style for p in pictograms})
    order = [things[int(i)] for i in rng.permutation(len(things))]
    share = min(1.0, len(things) / 300)
    alone = order[: max(1, int(share * HELD_OUT_PICTURES))]
    pictures = frozenset((thing, str(rng.choice(styles))) for thing in alone)
    others = order[len(alone) :]
    pairs = frozenset(
        frozenset(others[int(i)] for i in rng.choice(len(others), size=2, replace=False))
        for _ in range(max(1, int(share * HELD_OUT_PAIRS)))
    )
    coloured = [p.thing for p in pictograms if p.style == styles[0] and main_hue(p.pixels) is not None and plain_names(p)]
    coloured = [thing for thing in coloured if thing not in alone]
    chosen = rng.permutation(len(coloured))[: max(1, int(share * HELD_OUT_COLOURS))]
    colours = frozenset((str(rng.choice(list(HUES))), coloured[int(i)]) for i in chosen)
    return HeldOut(pictures, pairs, colours)


def draw(scene: Scene) -> np.ndarray:
    """The picture: uint8 `(SIDE, SIDE, 3)`."""
    canvas = Image.fromarray(_background_pixels(scene)).convert("RGBA")
    for pictogram, (side, centre) in zip(scene.pictograms, _layout(scene), strict=True):
        pixels = turned(pictogram.pixels, HUES[scene.colour]) if scene.colour else pictogram.pixels
        picture = Image.fromarray(pixels)
        if side != SIDE:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        canvas.alpha_composite(picture, _corner(centre, side)) if side < SIDE else canvas.alpha_composite(picture)
    return np.asarray(canvas.convert("RGB"))


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """What is said of a scene this time: nothing once in ten, for guidance; else what it shows, mostly its style."""
    chance = rng.random(4)
    if chance[0] < 0.1:
        return ""
    names = [_name(pictogram, scene.colour, rng) for pictogram in scene.pictograms]
    spoken = [_article(name) + name if chance[1] < 0.3 else name for name in names]
    if len(spoken) == 1:
        said = " ".join(
            word for word in (scene.size, scene.colour, names[0] if scene.size or scene.colour else spoken[0]) if word
        )
    elif len(spoken) == 2 and chance[3] < 0.25:
        said = f"{spoken[0]} on the left and {spoken[1]} on the right"
    else:
        said = f"{', '.join(spoken[:-1])} and {spoken[-1]}"
    parts = [said]
    if scene.place:
        parts = [f"{said} {scene.place}"]
    if chance[2] < 0.8:
        parts.insert(int(rng.random() < 0.8), scene.pictograms[0].style)
    if (words := _background_words(scene, rng)) and (scene.background != "white" or rng.random() < 0.08):
        parts.append(words)
    return (", " if rng.random() < 0.8 else " ").join(parts)


def words(pictograms: list[Pictogram]) -> list[str]:
    """All that captions are made of, each once, in the order in which it comes first."""
    said = [(*pictogram.names, *pictogram.keywords, pictogram.style) for pictogram in pictograms]
    others = [*COLOURS, *HUES, *PLACES, "small", "large", "a", "an", "and", "on", "from", "to", "gradient", "background"]
    return list(dict.fromkeys(word for part in (*said, others) for word in part if word))


def main_hue(pixels: np.ndarray) -> float | None:
    """The hue in degrees that most of what is coloured in an RGBA picture has; None if little is coloured, or many ways."""
    hue, saturation, value = _hsv(pixels[..., :3])
    seen = (pixels[..., 3] > 128) & (saturation > 0.35) & (value > 0.25)
    if seen.sum() < 0.5 * (pixels[..., 3] > 128).sum():
        return None
    angles = np.deg2rad(hue[seen])
    middle = np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())
    near = np.cos(angles - middle) > np.cos(np.deg2rad(35))
    return float(np.rad2deg(middle) % 360) if near.mean() > 0.7 else None


def turned(pixels: np.ndarray, hue: float) -> np.ndarray:
    """An RGBA picture with its main hue turned to `hue`, in degrees; hues far from it stay as they are."""
    main = main_hue(pixels)
    if main is None:
        return pixels
    image = Image.fromarray(pixels[..., :3]).convert("HSV")
    hsv = np.array(image)
    degrees = hsv[..., 0].astype(np.float32) * 360 / 255
    away = (degrees - main + 180) % 360 - 180
    moved = (hue + away) % 360
    hsv[..., 0] = np.where(np.abs(away) < 60, moved * 255 / 360, hsv[..., 0]).astype(np.uint8)
    colours = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    return np.concatenate([colours, pixels[..., 3:]], axis=-1)


def plain_names(pictogram: Pictogram) -> list[str]:
    """Its names without those that hold the name of a colour: `apple`, not `red apple`."""
    return [name for name in pictogram.names if not set(name.split()) & {*COLOURS, *HUES}]


def _hsv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    hsv = np.asarray(Image.fromarray(pixels).convert("HSV")).astype(np.float32) / 255
    return hsv[..., 0] * 360, hsv[..., 1], hsv[..., 2]


def _name(pictogram: Pictogram, colour: str, rng: np.random.Generator) -> str:
    if not colour and pictogram.keywords and rng.random() < 0.06:
        return str(rng.choice(pictogram.keywords))
    return str(rng.choice(plain_names(pictogram) if colour else pictogram.names))


def _article(name: str) -> str:
    return "an " if name[0] in "aeiou" else "a "


def _background_words(scene: Scene, rng: np.random.Generator) -> str:
    if scene.two_tone:
        return f"{scene.background} and {scene.other} background"
    if scene.other:
        return f"gradient from {scene.background} to {scene.other}"
    return f"{scene.background} background" if rng.random() < 0.7 else f"on {scene.background}"


def _background_pixels(scene: Scene) -> np.ndarray:
    first, second = (
        np.array(COLOURS[name], dtype=np.float32) for name in (scene.background, scene.other or scene.background)
    )
    along = np.linspace(0, 1, SIDE, dtype=np.float32)
    if scene.two_tone:
        along = (along > 0.5).astype(np.float32)
    share = np.broadcast_to(along[None, :] if scene.two_tone else along[:, None], (SIDE, SIDE))[..., None]
    pixels = first * (1 - share) + second * share + np.array(scene.jitter, dtype=np.float32)
    return pixels.clip(0, 255).round().astype(np.uint8)


def _layout(scene: Scene) -> list[tuple[int, tuple[float, float]]]:
    """For each thing its side in pixels and its middle, as shares of the picture."""
    across, down = (pixels / SIDE for pixels in scene.shift)
    if len(scene.pictograms) == 1:
        x, y = PLACES[scene.place]
        return [(round(SIDE * SMALL) if scene.size == "small" else SIDE, (x + across, y + down))]
    side = round(SIDE * (HALF if len(scene.pictograms) == 2 else THIRD))
    number = len(scene.pictograms)
    row = [((index + 0.5) / number, 0.5 + (down if index % 2 else -down)) for index in range(number)]
    return [(side, (x, y + across)) for x, y in row]


def _corner(centre: tuple[float, float], side: int) -> tuple[int, int]:
    left, top = (round(SIDE * middle - side / 2) for middle in centre)
    return min(max(left, 0), SIDE - side), min(max(top, 0), SIDE - side)


def _shift(rng: np.random.Generator, most: int) -> tuple[int, int]:
    across, down = rng.integers(-most, most + 1, size=2)
    return int(across), int(down)
