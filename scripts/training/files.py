"""The files that training writes: networks in the published layout, and validation pictures."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from scripts.training.options import require
from seesr.weights.state_dict import DIFFUSERS_FILE


def write_model(folder: Path, config: dict[str, Any], tensors: Mapping[str, Tensor], stem: str = DIFFUSERS_FILE) -> None:
    """`config.json` and the tensors beside it, as `write_tensors` does."""
    write_json(folder / "config.json", config)
    write_tensors(folder / f"{stem}.safetensors", tensors)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """In float16."""
    save_file({key: tensor.detach().half().contiguous() for key, tensor in tensors.items()}, path)


def copy_once(source: Path | None, target: Path) -> None:
    """Copies a part of a weights folder into WORK; without `source` it must be there.

    What a run there already uses is not replaced by another.

    Raises:
        typer.BadParameter: one of both does not exist, or they differ.
    """
    if source is None:
        require(target.is_dir(), f"{target} does not exist: train it first, or give --{target.name}")
        return
    require(source.is_dir(), f"{source} does not exist")
    if not target.exists():
        copy = target.with_name(f"{target.name}.tmp")
        shutil.copytree(source, copy, dirs_exist_ok=True)
        copy.rename(target)
    else:
        names = [path.name for path in source.iterdir()]
        same = not any(filecmp.cmpfiles(source, target, names, shallow=False)[1:])
        require(same, f"{target} exists and is not {source}: take another --work")


def save_picture(path: Path, *columns: Tensor) -> None:
    """Batches `(B, 3, H, W)` in -1..1 side by side, a row each picture, as a PNG."""
    rows = torch.cat([torch.cat(list(column.cpu()), dim=1) for column in columns], dim=2)
    pixels = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)
