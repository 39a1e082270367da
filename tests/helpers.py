"""What tests share that is not a fixture: places, pictures, and upscalers that differ in how they run."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from PIL import Image, ImageCms
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seesr import Upscaler
from seesr.engine import Engine
from seesr.stages import StageLog, Stages

TESTS = Path(__file__).parent
ROOT, PHOTOS, SCRIPTS = TESTS.parent, TESTS / "photos", TESTS.parent / "scripts"
REFERENCE = Path(os.environ.get("SEESR_REFERENCE") or TESTS / "reference")
"""Tensors of the published code."""

MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"],
    "BMP": ["1", "L", "P", "RGB"],
    "GIF": ["P", "L"],
    "AVIF": ["RGB", "RGBA"],
    "HEIF": ["RGB"],
}
"""Formats, and the modes in which each holds a picture."""

Run = Callable[..., "Outcome"]
"""Runs a command with these arguments."""


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


def cases(count: int) -> int:
    """What a test gives as `max_examples` that wants `count` cases, or ten times as many in a long run."""
    return count * 10 if settings.get_current_profile_name() == "long" else count


def difference(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference in grey levels."""
    return np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).mean()


def is_close(first: Image.Image, second: Image.Image, levels: float) -> bool:
    """Whether they differ by at most `levels` grey levels on average, both in RGB."""
    return difference(first.convert("RGB"), second.convert("RGB")) <= levels


def photograph(name: str, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """One of the photographs in `PHOTOS`, or a part of it, in RGB."""
    image = Image.open(PHOTOS / name).convert("RGB")
    return image.crop(box) if box else image


def photo_in_mode(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A part of a photograph, in any of Pillow's modes."""
    image = photograph("chelsea.png").resize((width, height), box=(100, 60, 300, 260))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    return image.convert(mode)


def thumbnail(name: str) -> Image.Image:
    """A whole photograph, without the metadata of its file."""
    image = photograph(name).resize((32, 32))
    image.info.clear()
    return image


def encoded(image: Image.Image, kind: str, **arguments: Any) -> bytes:
    """The bytes of a file of this format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def swapped_profile() -> bytes:
    """An ICC profile that is sRGB's, except that red and blue have each other's place."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return content.replace(b"rXYZ", b"_XYZ").replace(b"bXYZ", b"rXYZ").replace(b"_XYZ", b"bXYZ")


def sharing(upscaler: Upscaler, **settings: Any) -> Upscaler:
    """An upscaler on the same loaded networks, whose engine is made with other `settings`."""
    engine = upscaler.engine
    kept = {name: getattr(engine, name) for name in ("components", "costs", "dtype", "limits", "memory_limit")}
    return Upscaler(Engine(**kept | settings), upscaler.weights)


@contextmanager
def hooked(network: nn.Module, see: Callable[..., object]) -> Iterator[None]:
    """Calls `see` with `network` and its arguments before each of its passes."""
    handle = network.register_forward_pre_hook(lambda *given: see(*given) and None)
    try:
        yield
    finally:
        handle.remove()


def watching(enter: Callable[[str], object]) -> type[Stages]:
    """`Stages` of a job that call `enter` with each stage's name when it begins."""

    class Watched(Stages):
        @contextmanager
        def stage(self, name: str) -> Iterator[StageLog]:
            enter(name)
            with super().stage(name) as log:
                yield log

    return Watched


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made under it held at one moment."""

    def __init__(self) -> None:
        super().__init__()
        self.peak, self.storages = 0, {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for tensor in tree_leaves(made):
            # A view or a change in place is nothing new.
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.storages = {key: entry for key, entry in self.storages.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))
        return made
