"""Legacy PyTorch files to safetensors, once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from seesr.files import whole_file
from seesr.weights.cache import Cache
from seesr.weights.tensors import read_legacy


def convert_legacy(source: Path, target: Path, drop: tuple[str, ...] = ()) -> None:
    """Writes the tensors of `source` as safetensors, but those whose names begin with one of `drop`.

    Raises:
        WeightsError: the file is damaged, or holds more than tensors. Nothing is written then.
        OSError: the target cannot be written.
    """
    tensors = read_legacy(source)
    # Copies: the file's tensors may share memory, which safetensors does not take.
    used = {key: tensor.clone().contiguous() for key, tensor in tensors.items() if not key.startswith(drop)}
    with whole_file(target) as temporary:
        try:
            save_file(used, temporary)
        except SafetensorError as error:
            raise OSError(f"{target} cannot be written ({error})") from error


def converted(source: Path, cache: Cache, drop: tuple[str, ...] = ()) -> Path:
    """The safetensors of a user's legacy file, made in the cache when it is first asked for, as by `convert_legacy`.

    A file that changes is converted again. Where the cache cannot be written, OSError is raised.
    """
    state = source.stat()
    name = hashlib.sha256(f"{source.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache.root / "converted" / f"{source.stem}-{name}.safetensors"
    if not target.exists():
        convert_legacy(source, target, drop)
    return target
