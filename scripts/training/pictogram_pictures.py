"""The pictures that `pictograms` learns from, and what may be said of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.training.options import require

SIDE = 128
"""Pixels along a side of a picture."""
THINGS = Path(__file__).with_name("pictograms.txt")
"""What is drawn."""
STYLES = {"lobehub-fluent-emoji-3d": "3d", "iconify-json-fluent-emoji-flat": "flat", "iconify-json-noto": "drawn"}
"""The style word of each package, by how its folder's name begins."""
NAMES = "emojibase-data"
"""How the folder's name begins of the package with names and keywords."""
KEYWORDS = 3
"""At most so many keywords of each thing are learnt."""


@dataclass(frozen=True)
class Pictogram:
    """One picture."""

    names: tuple[str, ...]
    """Of what it shows, the usual one first."""
    keywords: tuple[str, ...]
    style: str
    """One of the words in `STYLES`."""
    pixels: np.ndarray
    """uint8 `(SIDE, SIDE, 3)`, on white."""


def caption(pictogram: Pictogram, rng: np.random.Generator) -> str:
    """What is said of a picture this time: nothing once in ten, for guidance; else a name, mostly its style, at times
    keywords, in changing order."""
    chance = rng.random(3)
    if chance[0] < 0.1:
        return ""
    parts = [str(rng.choice(pictogram.names))]
    if chance[1] < 0.8:
        parts.insert(int(rng.integers(2)), pictogram.style)
    if chance[2] < 0.2 and pictogram.keywords:
        parts.append(str(rng.choice(pictogram.keywords)))
    return (", " if rng.random() < 0.7 else " ").join(parts)


def words(pictograms: list[Pictogram]) -> list[str]:
    """All that captions are made of, each once, in the order in which it comes first."""
    said = [(*pictogram.names, *pictogram.keywords, pictogram.style) for pictogram in pictograms]
    return list(dict.fromkeys(word for part in said for word in part))


def read_pictograms(packages: Path) -> list[Pictogram]:
    """The things of `THINGS` in all styles, of a folder in which the unpacked npm packages lie.

    Raises:
        typer.BadParameter: a package is missing, or has no picture of a thing.
    """
    described = {entry["label"]: entry for entry in _json(_package(packages, NAMES) / "en" / "data.json")}
    folders = {style: _package(packages, package) for package, style in STYLES.items()}
    drawings = {style: _Drawings(folder) for style, folder in folders.items() if (folder / "icons.json").exists()}
    pictograms = list[Pictogram]()
    for label, *others in _things():
        entry = described[label]
        keywords = _keywords(entry["tags"], [label, *others])
        code = entry["hexcode"].lower()
        for style, folder in folders.items():
            codes = (code, code.replace("-fe0f", ""), f"{code}-fe0f")
            found = [drawings[style].pixels(c) if style in drawings else _asset(folder, c) for c in codes]
            pixels = next((picture for picture in found if picture is not None), None)
            require(pixels is not None, f"{folder} has no picture of {label} ({code})")
            names = tuple(name.lower() for name in (label, *others))
            pictograms.append(Pictogram(names, keywords, style, np.asarray(pixels)))
    return pictograms


def cached_pictograms(packages: Path | None, cache: Path) -> list[Pictogram]:
    """Those of `cache`, a file; if there is none yet, it is made of `packages`."""
    if not cache.exists():
        require(
            packages is not None and packages.is_dir(), f"{cache} does not exist yet: give --packages, an existing folder"
        )
        assert packages is not None
        made = read_pictograms(packages)
        told = json.dumps([[p.names, p.keywords, p.style] for p in made])
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(cache, pixels=np.stack([p.pixels for p in made]), told=np.array(told))
    with np.load(cache) as stored:
        told, pixels = json.loads(str(stored["told"])), stored["pixels"]
    return [
        Pictogram(tuple(names), tuple(keywords), style, picture)
        for (names, keywords, style), picture in zip(told, pixels, strict=True)
    ]


class _Drawings:
    """The SVG drawings of an Iconify package."""

    def __init__(self, folder: Path) -> None:
        self.icons, self.names = _json(folder / "icons.json"), _json(folder / "chars.json")

    def pixels(self, code: str) -> np.ndarray | None:
        """Of a character by its hexadecimal code."""
        import resvg_py  # only here: whoever has the pictures already needs no package that draws them

        if code not in self.names:
            return None
        name = self.names[code]
        name = self.icons.get("aliases", {}).get(name, {}).get("parent", name)
        icon = self.icons["icons"][name]
        width, height = (icon.get(side, self.icons[side]) for side in ("width", "height"))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        return _on_white(Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg, width=SIDE, height=SIDE))))


def _asset(folder: Path, code: str) -> np.ndarray | None:
    path = folder / "assets" / f"{code}.webp"
    return _on_white(Image.open(path)) if path.exists() else None


def _on_white(picture: Image.Image) -> np.ndarray:
    # Reduced with its colours multiplied by alpha, which Pillow does for RGBA by itself: no dark rims.
    picture = picture.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))


def _things() -> Iterator[list[str]]:
    for line in THINGS.read_text().splitlines():
        if line and not line.startswith("#"):
            yield [name.strip() for name in line.split(":")]


def _keywords(tags: list[str], names: list[str]) -> tuple[str, ...]:
    """The first `KEYWORDS` tags that are one word and not in the names already."""
    known = " ".join(names).lower().split()
    return tuple([tag.lower() for tag in tags if tag.isalpha() and tag.isascii() and tag.lower() not in known][:KEYWORDS])


def _package(packages: Path, name: str) -> Path:
    found = sorted(folder for folder in packages.glob(f"{name}*") if (folder / "package.json").exists())
    require(len(found) > 0, f"{packages} has no folder {name}: unpack the npm package there")
    return found[-1]


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
