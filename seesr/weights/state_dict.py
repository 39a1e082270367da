"""Reads state dicts and assigns them to models strictly: no key missing or unexpected, every shape equal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from seesr.errors import WeightsError, listed
from seesr.weights.cache import Cache
from seesr.weights.config import DIFFUSERS_FILE, PULL_HINT, read_config
from seesr.weights.convert import cached_conversion
from seesr.weights.tensors import StateDict, read_legacy, read_safetensors

logger = logging.getLogger("seesr")

Network = TypeVar("Network", bound=nn.Module)

SHOWN_KEYS = 3
"""Keys of each kind that an error message names."""


def load_network(
    folder: Path,
    build: Callable[[dict[str, Any]], Network],
    dtype: torch.dtype,
    adapt: Callable[[StateDict], StateDict] | None = None,
    stem: str = DIFFUSERS_FILE,
) -> Network:
    """Reads a network, in `dtype`, from a folder with `config.json` and a weight file with the name `stem`.

    Args:
        build: builds the network from its config, with weights on the meta device.
        adapt: changes the state dict of the file to that of the network: renames, adds or removes tensors.

    Raises:
        WeightsError: a file is missing, or the tensors do not fit the config.
    """
    network, state_dict = build(read_config(folder / "config.json")), read_state_dict(folder, stem, dtype)
    assign_state_dict(network, adapt(state_dict) if adapt else state_dict, str(folder), dtype)
    return network


def read_state_dict(
    folder: Path, stem: str, dtype: torch.dtype | None = None, containing: str = "", drop_prefixes: tuple[str, ...] = ()
) -> StateDict:
    """Reads `stem`.safetensors in `folder`, or the legacy `stem`.pth or .bin (with `weights_only=True`).

    Args:
        stem: file name without suffix, or a glob pattern such as `ram_*`.
        dtype: dtype of the tensors; None is that of the file.
        containing: only tensors whose names contain this are read.
        drop_prefixes: tensors of a legacy file whose names start with one of these are left out.

    Raises:
        WeightsError: the file is missing, there are several, or it is damaged.
    """
    for suffix in (".safetensors", ".pth", ".bin"):
        paths = sorted(folder.glob(stem + suffix))
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise WeightsError(f"{folder} holds more than one {stem}{suffix} ({names}); keep one.")
        if paths:
            return _read(paths[0], dtype, containing, drop_prefixes)
    raise WeightsError(f"{folder / stem}.safetensors is missing; {PULL_HINT}.")


def _read(path: Path, dtype: torch.dtype | None, containing: str, drop_prefixes: tuple[str, ...]) -> StateDict:
    """Reads a legacy file through its conversion in the cache, which is mapped into memory and has no unused tensors."""
    if path.suffix == ".safetensors":
        return read_safetensors(path, dtype, containing)
    try:
        return read_safetensors(cached_conversion(path, Cache.default(), drop_prefixes), dtype, containing)
    except OSError as error:
        logger.warning("%s is not cached as safetensors, because the cache cannot be written (%s)", path, error)
        return {
            key: tensor if dtype is None else tensor.to(dtype)
            for key, tensor in read_legacy(path).items()
            if containing in key
        }


def assign_state_dict(model: nn.Module, state_dict: StateDict, source: str, dtype: torch.dtype = torch.float32) -> None:
    """Assigns `state_dict` to `model`, which may be on the meta device, in `dtype`; tensors that have it are not copied.

    Raises:
        WeightsError: keys are missing, unexpected or of another shape; the first few are named. The model is unchanged then.
    """
    expected = model.state_dict()
    mismatches = {
        "missing": sorted(expected.keys() - state_dict.keys()),
        "unexpected": sorted(state_dict.keys() - expected.keys()),
        "of another shape": [
            f"{key} {tuple(state_dict[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in sorted(expected.keys() & state_dict.keys())
            if state_dict[key].shape != expected[key].shape
        ],
    }
    problems = [f"{len(keys)} {problem} ({listed(keys, SHOWN_KEYS)})" for problem, keys in mismatches.items() if keys]
    if problems:
        raise WeightsError(f"{source} does not fit {type(model).__name__}: {'; '.join(problems)}.")
    model.load_state_dict({key: tensor.to(dtype) for key, tensor in state_dict.items()}, assign=True)
    model.requires_grad_(False)
