"""Counts by exiftool what results keep of every field that it can write: the table of docs/pictures.md.

python -m scripts.check_metadata
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from seesr.images.finish import finish
from seesr.images.read import read_picture
from seesr.images.save import save
from seesr.images.sizes import Sizes
from seesr.options import Limits

GROUPS = (
    *("EXIF", "IPTC", "XMP-dc", "XMP-xmp", "XMP-xmpRights", "XMP-xmpMM", "XMP-photoshop", "XMP-iptcCore", "XMP-iptcExt"),
    *("XMP-exif", "XMP-exifEX", "XMP-tiff", "XMP-aux", "XMP-GPano", "XMP-lr", "XMP-mwg-rs"),
)
"""exiftool's groups of fields that a file gets all of."""
VALUES = ("1", "2020:01:02 03:04:05", "1 1 1 1")
"""Tried in turn, until a field takes one."""
SENSIBLE = (
    *("-EXIF:Orientation#=1", "-XMP-tiff:Orientation#=1", "-EXIF:XResolution=72", "-EXIF:YResolution=72"),
    *("-EXIF:ResolutionUnit=inches", "-XMP-tiff:XResolution=72", "-XMP-tiff:YResolution=72", "-XMP-dc:Subject=cat"),
    *("-XMP-GPano:FullPanoWidthPixels=128", "-XMP-GPano:CroppedAreaImageWidthPixels=64", "-XMP-crs:CropTop=0.1"),
    *("-EXIF:UserComment=fine light", "-XMP-dc:Creator=Jörg", "-XMP-crs:Exposure2012=1", "-XMP:Rating=4"),
    *("-EXIF:Rating=4", "-EXIF:XPKeywords=cat", "-EXIF:GPSLatitude=50.5", "-EXIF:GPSLatitudeRef=N", "-Comment=of the file"),
)
"""Values that mean something."""
PNG_TEXTS = ("-PNG:Title=t", "-PNG:Author=Emile", "-PNG:Description=d", "-PNG:Copyright=c", "-PNG:Source=s")
PAIRS = (("jpg", "jpg"), ("jpg", "png"), ("jpg", "tiff"), ("png", "png"), ("jpg", "webp"), ("jpg", "avif"), ("jpg", "jxl"))
SCALE = 2
OF_THE_FILE = (
    "ExifTool",
    "System",
    "File",
    "Composite",
    "JFIF",
    "PNG",
    "PNG-pHYs",
    "RIFF",
    "ICC",
    "Jpeg2000",
    "QuickTime",
    "Meta",
)
"""The beginnings of groups that describe the file itself."""


@dataclass(frozen=True)
class Comparison:
    """Fields of an input and of its result, as `group:name`."""

    before: dict[str, str]
    after: dict[str, str]

    @property
    def kept(self) -> set[str]:
        return {name for name, value in self.before.items() if self.after.get(name) == value}

    @property
    def dropped(self) -> set[str]:
        return self.before.keys() - self.after.keys()

    @property
    def changed(self) -> set[str]:
        return self.before.keys() - self.kept - self.dropped


def exiftool(*arguments: str | Path) -> str:
    """Runs exiftool, whose warnings about values that a field does not take do not matter."""
    return subprocess.run(["exiftool", *arguments], capture_output=True, text=True, check=False).stdout


def write_every_field(path: Path) -> None:
    """Writes a picture of 64x48 pixels with every field of `GROUPS` that exiftool can write into its format."""
    Image.effect_noise((64, 48), 50).convert("RGB").save(path, dpi=(72, 72))
    names = [
        f"{group}:{name}"
        for group in GROUPS
        for name in exiftool("-listw", f"-{group}:All").partition("\n")[2].split()
        if name != group and not name.startswith("GeoTiff")  # without its other fields exiftool writes a damaged one
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".args") as arguments:
        for value in VALUES:
            arguments.seek(0)
            arguments.truncate()
            arguments.write("\n".join(f"-{name}={value}" for name in names))
            arguments.flush()
            exiftool("-q", "-q", "-m", "-overwrite_original", "-@", arguments.name, path)
            there = {full.partition(":")[2] for full in fields(path)}
            names = [name for name in names if name.partition(":")[2] not in there]
    exiftool("-q", "-q", "-m", "-overwrite_original", *SENSIBLE, *(PNG_TEXTS if path.suffix == ".png" else ()), path)


def fields(path: Path) -> dict[str, str]:
    """The values of all fields of a file by `group:name`, without those that describe the file itself."""
    (found,) = json.loads(exiftool("-json", "-G1", "-a", "-n", path))
    texts = {"PNG:" + name for name in ("Title", "Author", "Description", "Copyright", "Source", "Comment", "Parameters")}
    return {
        name: str(value)
        for name, value in found.items()
        if name in texts or name == "File:Comment" or (not name.startswith(OF_THE_FILE) and name != "SourceFile")
    }


def save_enlarged(source: Path, target: Path) -> list[str]:
    """Enlarges a picture by `SCALE` without networks, and writes it with its metadata; returns the notes."""
    picture = read_picture(source, Limits())
    before = picture.rgb.size
    after = before[0] * SCALE, before[1] * SCALE
    image = finish(picture.rgb, picture, Sizes(before, after, after, after, 0), 0)
    notes = save(image, target, settings={"seed": 1}, metadata=picture.metadata.enlarged(before, after))
    return [*picture.notes, *notes]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for suffix in {source for source, _ in PAIRS}:
            write_every_field(Path(folder, f"every.{suffix}"))
        print("| from | to | fields | kept | adapted | dropped | left out for want of room |\n|---|---|---|---|---|---|---|")
        for source, kind in PAIRS:
            target = Path(folder, f"out.{kind}")
            notes = save_enlarged(Path(folder, f"every.{source}"), target)
            pair = Comparison(fields(Path(folder, f"every.{source}")), fields(target))
            counts = len(pair.before), len(pair.kept), len(pair.changed), len(pair.dropped)
            no_room = "; ".join(note.rpartition("left out: ")[2] for note in notes) or "nothing"
            print("|", " | ".join([source, kind, *map(str, counts), no_room]), "|")


if __name__ == "__main__":
    main()
