"""Feature maps stored in bands of rows, in memory or, beyond a limit, in temporary files."""

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

from seesr.kernels.group_norm import RunningStatistics


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom - 1` and columns `left` to `right - 1` of a feature map; it may reach beyond the map."""

    top: int
    bottom: int
    left: int
    right: int

    def expand(self, halo: int) -> Box:
        return Box(self.top - halo, self.bottom + halo, self.left - halo, self.right + halo)


class MapStorage:
    """Allocates bands: on `device` up to `limit` bytes in total, beyond that in temporary files in `folder`."""

    def __init__(self, limit: float = math.inf, folder: Path | None = None, device: torch.device | str = "cpu") -> None:
        self.limit, self.folder, self.device = limit, folder, device
        self.used = self.peak = self.in_files = 0
        """Bytes on the device now, the most that were there so far, and bytes of all files that were ever allocated."""

    def allocate(self, channels: int, rows: int, width: int, dtype: torch.dtype) -> Band:
        """An uninitialised band; its memory is released when nothing refers to it."""
        size = channels * rows * width * dtype.itemsize
        if self.used + size > self.limit:
            self.in_files += size
            return FileBand(channels, rows, width, dtype, self.folder)
        band = Band(channels, rows, width, dtype, self.device)
        self.used += size
        self.peak = max(self.peak, self.used)
        weakref.finalize(band, self._release, size)
        return band

    def _release(self, size: int) -> None:
        self.used -= size


class Band:
    """Some rows of a map in memory, `(1, channels, rows, width)`, channels last."""

    def __init__(self, channels: int, rows: int, width: int, dtype: torch.dtype, device: torch.device | str) -> None:
        shape = 1, channels, rows, width
        self._values = torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)

    def get(self, rows: slice, columns: slice) -> Tensor:
        """`(1, channels, rows, columns)`; it may share memory with the band."""
        return self._values[:, :, rows, columns]

    def put(self, rows: slice, columns: slice, values: Tensor) -> None:
        self._values[:, :, rows, columns] = values


class FileBand(Band):
    """A band in a temporary file, which is mapped into memory only during an access.

    Raises:
        MemoryError: the file cannot be created, or the disk is full; so the fallback tries the next memory plan.
    """

    def __init__(self, channels: int, rows: int, width: int, dtype: torch.dtype, folder: Path | None) -> None:
        self._shape, self._dtype = (1, rows, width, channels), dtype
        try:
            handle, self._path = tempfile.mkstemp(dir=folder, prefix="seesr-map-")
        except OSError as error:
            raise _storage_error("a file for feature maps cannot be created", error) from error
        weakref.finalize(self, Path(self._path).unlink, missing_ok=True)
        try:
            _reserve(handle, math.prod(self._shape) * dtype.itemsize)
        except OSError as error:
            raise _storage_error("there is no disk space for feature maps", error) from error
        finally:
            os.close(handle)

    def get(self, rows: slice, columns: slice) -> Tensor:
        return self._mapped()[:, :, rows, columns].clone()

    def put(self, rows: slice, columns: slice, values: Tensor) -> None:
        self._mapped()[:, :, rows, columns] = values

    def _mapped(self) -> Tensor:
        flat = torch.from_file(self._path, shared=True, size=math.prod(self._shape), dtype=self._dtype)
        return flat.view(self._shape).permute(0, 3, 1, 2)


def _storage_error(problem: str, error: OSError) -> MemoryError:
    return MemoryError(f"{problem} ({error.strerror}); set TMPDIR to another folder")


def _reserve(handle: int, size: int) -> None:
    """Allocates `size` bytes on disk, where the system can: a write to a memory-mapped file that has none kills the process
    when the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)


class FeatureMap:
    """`(1, channels, height, width)` in bands of `band_height` rows, with the statistics of what was written so far: each
    channel's mean and variance, for group norms."""

    def __init__(
        self, storage: MapStorage, channels: int, height: int, width: int, band_height: int, dtype: torch.dtype
    ) -> None:
        self.storage, self.dtype = storage, dtype
        self.channels, self.height, self.width, self.band_height = channels, height, width, band_height
        self._bands: dict[int, Band] = {}
        self.reset_statistics()

    @classmethod
    def from_tensor(cls, storage: MapStorage, tensor: Tensor, band_height: int, dtype: torch.dtype) -> FeatureMap:
        """A map with the values of `tensor` `(1, C, H, W)`, which may be on any device."""
        _, channels, height, width = tensor.shape
        feature_map = cls(storage, channels, height, width, band_height, dtype)
        for box in feature_map.tiles(width):
            feature_map.write(box, tensor[:, :, box.top : box.bottom, box.left : box.right].to(storage.device, dtype))
        return feature_map

    def tiles(self, tile_width: int) -> Iterator[Box]:
        """Boxes of a band's height and at most `tile_width` columns, from the top left, row by row."""
        for top in range(0, self.height, self.band_height):
            for left in range(0, self.width, tile_width):
                yield Box(top, min(top + self.band_height, self.height), left, min(left + tile_width, self.width))

    def read(self, box: Box) -> Tensor:
        """`(1, channels, rows, columns)`: the values of the part of `box` that is inside the map, and was written."""
        top, bottom = max(box.top, 0), min(box.bottom, self.height)
        left, right = max(box.left, 0), min(box.right, self.width)
        strips = []
        for index in range(top // self.band_height, (bottom - 1) // self.band_height + 1):
            start = index * self.band_height
            rows = slice(max(top - start, 0), min(bottom - start, self.band_height))
            strips.append(self._bands[index].get(rows, slice(left, right)))
        return strips[0] if len(strips) == 1 else torch.cat(strips, dim=2)

    def padding_for(self, box: Box) -> tuple[int, int, int, int]:
        """Pixels of `box` beyond the map: left, right, top, bottom, in the order of `torch.nn.functional.pad`."""
        return max(-box.left, 0), max(box.right - self.width, 0), max(-box.top, 0), max(box.bottom - self.height, 0)

    def write(self, box: Box, values: Tensor) -> None:
        """Writes `values` to `box`, which lies within one band, and adds them to the statistics."""
        index = box.top // self.band_height
        if index not in self._bands:
            rows = min(self.band_height, self.height - index * self.band_height)
            self._bands[index] = self.storage.allocate(self.channels, rows, self.width, self.dtype)
        start = index * self.band_height
        self._bands[index].put(slice(box.top - start, box.bottom - start), slice(box.left, box.right), values)
        self.statistics.add(values)

    def release_above(self, row: int) -> None:
        """Releases the bands that end at or above `row`."""
        for index in [index for index in self._bands if (index + 1) * self.band_height <= row]:
            del self._bands[index]

    def reset_statistics(self) -> None:
        """Begins the statistics anew, before the map is written over."""
        self.statistics = RunningStatistics(self.channels)

    def read_all(self) -> Tensor:
        """The whole map as one tensor."""
        return self.read(Box(0, self.height, 0, self.width))
