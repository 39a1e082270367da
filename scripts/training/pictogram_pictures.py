"""The pictograms that `pictograms` learns from: where they come from, their names, their pixels with transparency."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
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
LINES = "iconify-json-fluent-emoji-high-contrast"
"""The package of black-and-white line drawings, which an adapter (LoRA) is trained on."""
NAMES = "emojibase-data"
"""How the folder's name begins of the package with names and keywords."""
WITHOUT_PICTOGRAMS = (2, 9)
"""Groups of emojibase-data: parts of others, and flags."""
KEYWORDS = 3
"""At most so many keywords of each thing are learnt."""
PACKAGES = {
    "@lobehub/fluent-emoji-3d@1.1.0": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "@iconify-json/fluent-emoji-flat@1.2.6": "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    "@iconify-json/noto@1.2.9": "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "@iconify-json/fluent-emoji-high-contrast@1.2.6": "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
    "emojibase-data@17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
}
"""What is fetched from npm, with the SHA-256 of each package's file."""


@dataclass(frozen=True)
class Pictogram:
    """One picture."""

    names: tuple[str, ...]
    """Of what it shows, the usual one first."""
    keywords: tuple[str, ...]
    style: str
    """One of the words in `STYLES`."""
    pixels: np.ndarray
    """uint8 `(SIDE, SIDE, 4)`, RGBA; black where nothing is seen."""

    @property
    def thing(self) -> str:
        """What it shows, by its usual name."""
        return self.names[0]


def fetch_packages(folder: Path) -> None:
    """Fetches `PACKAGES` with npm and unpacks them in `folder`; what is there already is not fetched again.

    Prints the licence that each states.

    Raises:
        typer.BadParameter: npm is missing or fails, or a package is not the one that was trained on.
    """
    npm = shutil.which("npm")
    folder.mkdir(parents=True, exist_ok=True)
    for package, digest in PACKAGES.items():
        name, _, version = package.rpartition("@")
        packed = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
        if not packed.exists():
            require(
                npm is not None, f"npm is needed to fetch {package}: install Node.js, or put {packed.name} into {folder}"
            )
            done = subprocess.run([str(npm), "pack", package], cwd=folder, capture_output=True, text=True, check=False)
            require(done.returncode == 0, f"npm could not fetch {package}: {done.stderr.strip()[-300:]}")
        require(
            hashlib.sha256(packed.read_bytes()).hexdigest() == digest, f"{packed} is not the package that was trained on"
        )
        unpacked = folder / packed.stem
        if not unpacked.exists():
            with tarfile.open(packed) as archive:
                archive.extractall(folder / f"{packed.stem}.tmp", filter="data")
            (folder / f"{packed.stem}.tmp" / "package").rename(unpacked)
            (folder / f"{packed.stem}.tmp").rmdir()
        print(f"{package}: licence {_json(unpacked / 'package.json').get('license')}", flush=True)


def vocabulary() -> list[list[str]]:
    """The things of `THINGS`, each with its names."""
    lines = [line for line in THINGS.read_text().splitlines() if line and not line.startswith("#")]
    return [[name.strip() for name in line.split(":")] for line in lines]


def drawable_things(packages: Path) -> list[list[str]]:
    """Everything that has a picture in all styles, variants of tone and flags apart."""
    folders = [_package(packages, package) for package in STYLES]
    drawn = [
        set(_json(f / "chars.json")) if (f / "icons.json").exists() else {p.stem for p in (f / "assets").iterdir()}
        for f in folders
    ]
    entries = _json(_package(packages, NAMES) / "en" / "data.json")
    return [
        [entry["label"]]
        for entry in entries
        if entry.get("group") not in (None, *WITHOUT_PICTOGRAMS) and all(_codes(entry) & codes for codes in drawn)
    ]


def read_pictograms(packages: Path, styles: dict[str, str] = STYLES, everything: bool = False) -> list[Pictogram]:
    """The vocabulary, or everything, in all styles, of a folder in which the unpacked npm packages lie.

    Raises:
        typer.BadParameter: a package is missing, or has no picture of a thing.
    """
    described = {entry["label"]: entry for entry in _json(_package(packages, NAMES) / "en" / "data.json")}
    folders = {style: _package(packages, package) for package, style in styles.items()}
    drawings = {style: _Drawings(folder) for style, folder in folders.items() if (folder / "icons.json").exists()}
    pictograms = list[Pictogram]()
    for label, *others in drawable_things(packages) if everything else vocabulary():
        entry = described[label]
        keywords = _keywords(entry["tags"], [label, *others])
        codes = sorted(_codes(entry))
        for style, folder in folders.items():
            found = [drawings[style].pixels(c) if style in drawings else _asset(folder, c) for c in codes]
            pixels = next((picture for picture in found if picture is not None), None)
            if pixels is None and len(styles) == 1:  # line drawings, of which some things have none
                continue
            require(pixels is not None, f"{folder} has no picture of {label} ({codes[0]})")
            names = tuple(name.lower() for name in (label, *others))
            pictograms.append(Pictogram(names, keywords, style, np.asarray(pixels)))
    return pictograms


def cached_pictograms(
    packages: Path | None,
    cache: Path,
    styles: dict[str, str] = STYLES,
    everything: bool = False,
) -> list[Pictogram]:
    """Those of `cache`, a file; if there is none yet, it is made of `packages`."""
    if not cache.exists():
        require(
            packages is not None and packages.is_dir(), f"{cache} does not exist yet: give --packages, an existing folder"
        )
        assert packages is not None
        made = read_pictograms(packages, styles, everything)
        told = json.dumps([[p.names, p.keywords, p.style] for p in made])
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(cache, pixels=np.stack([p.pixels for p in made]), told=np.array(told))
    with np.load(cache) as stored:
        told, pixels = json.loads(str(stored["told"])), stored["pixels"]
    return [
        Pictogram(tuple(names), tuple(keywords), style, picture)
        for (names, keywords, style), picture in zip(told, pixels, strict=True)
    ]


def fetched_pictograms(
    work: Path, name: str, packages: Path | None = None, styles: dict[str, str] = STYLES, everything: bool = False
) -> list[Pictogram]:
    """Those of the file `name` in `work`; if there is none yet, it is made of the packages, which are fetched first.

    Args:
        packages: where they are put; None is a folder of `work`.
    """
    packages = packages or work / "packages"
    if not (work / name).exists():
        fetch_packages(packages)
    return cached_pictograms(packages, work / name, styles, everything)


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
        return _transparent(Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg, width=SIDE, height=SIDE))))


def _asset(folder: Path, code: str) -> np.ndarray | None:
    path = folder / "assets" / f"{code}.webp"
    return _transparent(Image.open(path)) if path.exists() else None


def _transparent(picture: Image.Image) -> np.ndarray:
    # Reduced with its colours multiplied by alpha, which Pillow does for RGBA by itself: no dark rims.
    picture = picture.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = np.array(picture)
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def _codes(entry: dict[str, Any]) -> set[str]:
    """How packages may write a character, in hexadecimal."""
    code = entry["hexcode"].lower()
    return {code, code.replace("-fe0f", ""), f"{code}-fe0f"}


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
