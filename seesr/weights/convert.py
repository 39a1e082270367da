"""Converts legacy PyTorch files to safetensors, each once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from seesr.files import atomic_write
from seesr.weights.cache import Cache
from seesr.weights.tensors import read_legacy


def convert_legacy(source: Path, target: Path, drop_prefixes: tuple[str, ...] = ()) -> None:
    """Writes the tensors of `source` as safetensors, except those whose names start with one of `drop_prefixes`.

    Raises:
        WeightsError: the file is damaged, or holds more than tensors; nothing is written.
        OSError: the target cannot be written.
    """
    tensors = read_legacy(source)
    # Cloned, because the tensors may share memory, which safetensors refuses.
    kept = {key: tensor.clone().contiguous() for key, tensor in tensors.items() if not key.startswith(drop_prefixes)}
    with atomic_write(target) as temporary:
        try:
            save_file(kept, temporary)
        except SafetensorError as error:
            raise OSError(f"{target} cannot be written ({error})") from error


def cached_conversion(source: Path, cache: Cache, drop_prefixes: tuple[str, ...] = ()) -> Path:
    """The safetensors file in the cache for a user's legacy file, converted if it is new or has changed.

    Raises:
        WeightsError, OSError: as `convert_legacy`.
    """
    stat = source.stat()
    name = hashlib.sha256(f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache.root / "converted" / f"{source.stem}-{name}.safetensors"
    if not target.exists():
        convert_legacy(source, target, drop_prefixes)
    return target
