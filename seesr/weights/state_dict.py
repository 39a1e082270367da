"""Reads weight files and puts them into models, strictly: nothing missing, nothing extra, every shape right."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from seesr.errors import WeightsError
from seesr.weights.cache import Cache
from seesr.weights.config import HINT, read_config
from seesr.weights.convert import converted
from seesr.weights.tensors import StateDict, read_legacy, read_safetensors

logger = logging.getLogger("seesr")

Network = TypeVar("Network", bound=nn.Module)

DIFFUSERS_FILE = "diffusion_pytorch_model"
SHOWN_KEYS = 3


def load_network(
    folder: Path,
    build: Callable[[dict[str, Any]], Network],
    dtype: torch.dtype,
    adapt: Callable[[StateDict], StateDict] | None = None,
    stem: str = DIFFUSERS_FILE,
) -> Network:
    """The network of a folder with `config.json` and the tensors `stem`, as `dtype`.

    Args:
        build: makes the network of its config, with unset weights on the meta device.
        adapt: makes of the file's tensors those that the network has: other names, some more, some less.

    Raises:
        WeightsError: a file is missing, or the tensors do not fit the config.
    """
    network, tensors = build(read_config(folder / "config.json")), read_state_dict(folder, stem, dtype)
    assign_state_dict(network, adapt(tensors) if adapt else tensors, str(folder), dtype)
    return network


def read_state_dict(
    folder: Path, stem: str, dtype: torch.dtype | None = None, part: str = "", drop: tuple[str, ...] = ()
) -> StateDict:
    """Tensors of `stem`.safetensors in `folder`, or of the legacy `stem`.pth or .bin (read with `weights_only=True`).

    `stem` may be a glob pattern, for families such as `ram_*`. As `dtype`, or else as they are; only those whose
    names hold `part`, and of a legacy file none whose name begins with one of `drop`.

    Raises:
        WeightsError: no such file, several, or one that is not what its name says.
    """
    for suffix in (".safetensors", ".pth", ".bin"):
        found = sorted(folder.glob(stem + suffix))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise WeightsError(f"{folder} holds more than one {stem}{suffix} ({names}); keep one.")
        if found:
            return _read(found[0], dtype, part, drop)
    raise WeightsError(f"{folder / stem}.safetensors is missing; {HINT}.")


def _read(path: Path, dtype: torch.dtype | None, part: str, drop: tuple[str, ...]) -> StateDict:
    """A legacy file by way of the cache: from the second time on it is mapped into memory, without its unused parts."""
    if path.suffix == ".safetensors":
        return read_safetensors(path, dtype, part)
    try:
        return read_safetensors(converted(path, Cache.default(), drop), dtype, part)
    except OSError as error:
        logger.warning("%s is not kept as safetensors, the cache cannot be written (%s)", path, error)
        return {
            key: tensor if dtype is None else tensor.to(dtype) for key, tensor in read_legacy(path).items() if part in key
        }


def assign_state_dict(model: nn.Module, state_dict: StateDict, source: str, dtype: torch.dtype = torch.float32) -> None:
    """Puts `state_dict` into `model` (which may be on the meta device), as `dtype`; what is of it already is not copied.

    Raises:
        WeightsError: keys are missing, extra or of another shape; the first few are named. The model is untouched then.
    """
    expected = model.state_dict()
    wrong = {
        "missing": sorted(expected.keys() - state_dict.keys()),
        "unexpected": sorted(state_dict.keys() - expected.keys()),
        "of another shape": [
            f"{key} {tuple(state_dict[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in sorted(expected.keys() & state_dict.keys())
            if state_dict[key].shape != expected[key].shape
        ],
    }
    problems = [f"{len(keys)} {kind} ({_first_few(keys)})" for kind, keys in wrong.items() if keys]
    if problems:
        raise WeightsError(f"{source} does not fit {type(model).__name__}: {'; '.join(problems)}.")
    model.load_state_dict({key: tensor.to(dtype) for key, tensor in state_dict.items()}, assign=True)
    model.requires_grad_(False)


def _first_few(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
