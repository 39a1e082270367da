"""Feature maps that lie in memory, in bands of rows, or in files when they are large."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seesr.kernels.group_norm import Statistics


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right` of a map, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int

    def around(self, halo: int) -> Box:
        return Box(self.top - halo, self.bottom + halo, self.left - halo, self.right + halo)


class MapMemory:
    """Gives out memory for bands: on `device` up to `limit` bytes in all, then in temporary files in `folder`."""

    def __init__(self, limit: float = math.inf, folder: Path | None = None, device: torch.device | str = "cpu") -> None:
        self.limit, self.folder, self.device = limit, folder, device
        self.used = self.peak = self.in_files = 0

    def allocate(self, channels: int, rows: int, width: int, dtype: torch.dtype) -> Band:
        """A band with unset values; its memory is given back when nothing refers to it."""
        size = channels * rows * width * dtype.itemsize
        if self.used + size > self.limit:
            self.in_files += size
            return FileBand(channels, rows, width, dtype, self.folder)
        band = Band(channels, rows, width, dtype, self.device)
        self.used += size
        self.peak = max(self.peak, self.used)
        weakref.finalize(band, self._give_back, size)
        return band

    def _give_back(self, size: int) -> None:
        self.used -= size


class Band:
    """Some rows of a map, `(1, channels, rows, width)`, channels last."""

    def __init__(self, channels: int, rows: int, width: int, dtype: torch.dtype, device: torch.device | str) -> None:
        shape = 1, channels, rows, width
        self._values = torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)

    def get(self, rows: slice, columns: slice) -> Tensor:
        return self._values[:, :, rows, columns]

    def put(self, rows: slice, columns: slice, values: Tensor) -> None:
        self._values[:, :, rows, columns] = values


class FileBand(Band):
    """The same in a file, mapped into memory for each access only: what is not looked at takes no memory."""

    def __init__(self, channels: int, rows: int, width: int, dtype: torch.dtype, folder: Path | None) -> None:
        self._shape, self._dtype = (1, rows, width, channels), dtype
        try:
            handle, self._path = tempfile.mkstemp(dir=folder, prefix="seesr-map-")
        except OSError as error:
            raise _without_place("no file for feature maps can be made", error) from error
        weakref.finalize(self, Path(self._path).unlink, missing_ok=True)
        try:
            _reserve(handle, math.prod(self._shape) * dtype.itemsize)
        except OSError as error:
            raise _without_place("no room for feature maps among temporary files", error) from error
        finally:
            os.close(handle)

    def get(self, rows: slice, columns: slice) -> Tensor:
        return self._mapped()[:, :, rows, columns].clone()

    def put(self, rows: slice, columns: slice, values: Tensor) -> None:
        self._mapped()[:, :, rows, columns] = values

    def _mapped(self) -> Tensor:
        flat = torch.from_file(self._path, shared=True, size=math.prod(self._shape), dtype=self._dtype)
        return flat.view(self._shape).permute(0, 3, 1, 2)


def _without_place(found: str, error: OSError) -> MemoryError:
    return MemoryError(f"{found} ({error.strerror}); TMPDIR may name another folder")


def _reserve(handle: int, size: int) -> None:
    """Makes a file of `size` bytes that are really there: writing to a mapped hole in a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)


class FeatureMap:
    """`(1, channels, height, width)` in bands of `band` rows, with the statistics of what was written."""

    def __init__(self, memory: MapMemory, channels: int, height: int, width: int, band: int, dtype: torch.dtype) -> None:
        self.memory, self.dtype = memory, dtype
        self.channels, self.height, self.width, self.band = channels, height, width, band
        self._bands: dict[int, Band] = {}
        self.forget_statistics()

    @classmethod
    def of(cls, memory: MapMemory, tensor: Tensor, band: int, dtype: torch.dtype) -> FeatureMap:
        """A map with the values of `tensor` `(1, C, H, W)`, wherever that lies."""
        _, channels, height, width = tensor.shape
        made = cls(memory, channels, height, width, band, dtype)
        for box in made.tiles(width):
            made.write(box, tensor[:, :, box.top : box.bottom, box.left : box.right].to(memory.device, dtype))
        return made

    def tiles(self, width: int) -> Iterator[Box]:
        """Boxes of a band's height and at most `width` columns, from the top left, row by row."""
        for top in range(0, self.height, self.band):
            for left in range(0, self.width, width):
                yield Box(top, min(top + self.band, self.height), left, min(left + width, self.width))

    def read(self, box: Box) -> Tensor:
        """The part of `box` that lies inside the map."""
        top, bottom = max(box.top, 0), min(box.bottom, self.height)
        left, right = max(box.left, 0), min(box.right, self.width)
        parts = []
        for number in range(top // self.band, (bottom - 1) // self.band + 1):
            start = number * self.band
            rows = slice(max(top - start, 0), min(bottom - start, self.band))
            parts.append(self._bands[number].get(rows, slice(left, right)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def outside(self, box: Box) -> tuple[int, int, int, int]:
        """How far `box` reaches beyond the map: left, right, top, bottom, as `torch.nn.functional.pad` takes it."""
        return max(-box.left, 0), max(box.right - self.width, 0), max(-box.top, 0), max(box.bottom - self.height, 0)

    def write(self, box: Box, values: Tensor) -> None:
        """Puts `values` into `box`, which lies within one band, and counts them in the statistics."""
        number = box.top // self.band
        if number not in self._bands:
            rows = min(self.band, self.height - number * self.band)
            self._bands[number] = self.memory.allocate(self.channels, rows, self.width, self.dtype)
        start = number * self.band
        self._bands[number].put(slice(box.top - start, box.bottom - start), slice(box.left, box.right), values)
        self.statistics.add(values)

    def release_above(self, row: int) -> None:
        """Gives back the bands that end at or above `row`."""
        for number in [number for number in self._bands if (number + 1) * self.band <= row]:
            del self._bands[number]

    def forget_statistics(self) -> None:
        """Begins to count anew."""
        self.statistics = Statistics(self.channels)

    def whole(self) -> Tensor:
        """All of it, as one tensor."""
        return self.read(Box(0, self.height, 0, self.width))
