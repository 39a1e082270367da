"""Metadata of a picture, whatever the format of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from seesr.images.metadata import xmp
from seesr.images.metadata.exif import Resolution, scale_focal_plane
from seesr.images.metadata.ifd import Exif
from seesr.images.sizes import Size


@dataclass(frozen=True)
class Metadata:
    """What a picture's file holds beside its pixels and its colours, as far as it is true of the upright picture."""

    exif: bytes | None = None
    """EXIF, `Exif\\0\\0` first, without resolution, orientation and software."""
    xmp: bytes | None = None
    """The packet, UTF-8."""
    iptc: bytes | None = None
    """IPTC's datasets."""
    comment: bytes | None = None
    """The comment of a JPEG, GIF or PNG, most often in UTF-8."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Texts of a PNG by keyword, but its comment, XMP, and those that SeeSR writes itself."""
    dots_per_inch: Resolution | None = None

    def enlarged(self, before: Size, after: Size) -> Metadata:
        """The metadata of the picture when it has grown from `before` to `after` pixels: its printed size is the same."""
        exif = Exif.parse(self.exif) if self.exif else Exif()
        scale_focal_plane(exif, before, after)
        dpi = self.dots_per_inch
        return replace(
            self,
            exif=exif.content() or None,
            xmp=xmp.enlarged(self.xmp, before, after) if self.xmp else None,
            dots_per_inch=dpi and (dpi[0] * after[0] / before[0], dpi[1] * after[1] / before[1]),
        )

    def anonymous(self) -> Metadata:
        """Only the resolution, which identifies nobody."""
        return Metadata(dots_per_inch=self.dots_per_inch)

    def pillow_info(self) -> dict[str, Any]:
        """EXIF, XMP and resolution under the names that Pillow has for them in `Image.info`."""
        values = {"exif": self.exif, "xmp": self.xmp, "dpi": self.dots_per_inch}
        return {name: value for name, value in values.items() if value}
