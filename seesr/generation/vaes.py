"""VAEs that take the place of a checkpoint's own: folders in diffusers' layout, or single files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from seesr.autoencoder.vae import load_vae
from seesr.errors import OptionError, WeightsError
from seesr.generation.library import VAES, find_model, require_safetensors
from seesr.generation.single_file import load_vae_file
from seesr.weights.config import read_config
from seesr.weights.resolve import files_digest, folder_digest


@dataclass(frozen=True)
class VAESource:
    """Where a VAE is: a folder with `config.json`, or a safetensors file."""

    path: Path
    name: str

    @cached_property
    def digest(self) -> str:
        """A few digits that tell its weights from others."""
        return folder_digest(self.path, (".",)) if self.path.is_dir() else files_digest({"vae": self.path})

    def load(self, dtype: torch.dtype) -> AutoencoderKL:
        """Reads it.

        Raises:
            WeightsError: files are missing or damaged, or are not a VAE of this kind.
        """
        return load_vae(self.path, dtype) if self.path.is_dir() else load_vae_file(self.path, dtype)


def resolve_vae(name: str | os.PathLike[str]) -> VAESource:
    """The VAE `name`: a folder or a file, else one of that name in `models/vae`.

    Raises:
        OptionError: there is none.
        WeightsError: the folder holds another kind of network, or weights that are not safetensors.
    """
    path = find_model(name, VAES)
    if path is None:
        raise OptionError(f"unknown VAE {str(name)!r}; give a folder, a safetensors file or a name in models/{VAES}.")
    if path.is_dir():
        if (found := read_config(path / "config.json").get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
            raise WeightsError(f"{path} is {found if isinstance(found, str) else 'another network'}, not AutoencoderKL.")
        require_safetensors(path, str(path))
    return VAESource(path, path.name if path.is_dir() else path.stem)
