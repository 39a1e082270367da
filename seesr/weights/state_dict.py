"""Reads weight files and puts them into models, strictly: nothing missing, nothing extra, every shape right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seesr.errors import WeightsError

StateDict = dict[str, Tensor]
DIFFUSERS_FILE = "diffusion_pytorch_model"
SHOWN_KEYS = 3


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        WeightsError: the file is missing or not a JSON object.
    """
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not a JSON file ({error}).") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} holds no JSON object.")
    return config


def read_state_dict(folder: Path, stem: str) -> StateDict:
    """Tensors of `stem`.safetensors in `folder`, or of the legacy `stem`.pth or .bin (read with `weights_only=True`).

    `stem` may be a glob pattern, for families such as `ram_swin_*`.

    Raises:
        WeightsError: no such file, several, or one that is not what its name says.
    """
    for suffix in (".safetensors", ".pth", ".bin"):
        found = sorted(folder.glob(stem + suffix))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise WeightsError(f"{folder} holds more than one {stem}{suffix} ({names}); keep one.")
        if found:
            return _read_safetensors(found[0]) if suffix == ".safetensors" else _read_legacy(found[0])
    raise WeightsError(f"{folder / stem}.safetensors is missing.")


def _read_safetensors(path: Path) -> StateDict:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); delete it and get it again.") from error


def _read_legacy(path: Path) -> StateDict:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # torch.load raises whichever of these its unpickler or its zip reader meets first in a damaged file.
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise WeightsError(f"{path} is not a readable PyTorch file; delete it and get it again.") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise WeightsError(f"{path} holds more than tensors and was refused; get it again from its source.") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds no state dict of tensors.")
    return content


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
