"""Checkpoints in one safetensors file, in the layout of CompVis (SD 1) and of Stability AI (SD 2), and VAEs in one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from seesr.autoencoder.vae import build_vae
from seesr.diffusion.text import PromptEncoder, adapt_state_dict, build_text_encoder, clip_tokenizer
from seesr.errors import WeightsError
from seesr.generation.ldm_layout import (
    LATENT_CHANNELS,
    convert_text,
    convert_unet,
    convert_vae,
    text_config,
    unet_config,
    vae_config,
)
from seesr.generation.tensor_names import CLIP, OPEN_CLIP, OTHER_FAMILIES, UNET, VAE
from seesr.weights.header import Header, read_header
from seesr.weights.resolve import files_digest
from seesr.weights.state_dict import SHOWN_KEYS, assign_state_dict
from seesr.weights.tensors import StateDict, read_safetensors

EPSILON, V_PREDICTION = "epsilon", "v_prediction"
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Of both families, without `prediction_type`."""
_IGNORED = re.compile(
    r"[^.]*"  # numbers of the noise schedule, markers
    r"|model_ema\..*"
    r"|(first_stage_model\.)?(loss|model_ema)\..*"
    r"|cond_stage_model\.(.*\.)?(position_ids|logit_scale|text_projection(\.weight)?|attn_mask)"
    # Of OpenCLIP's 24 layers SD 2 takes the output of the last but one.
    r"|cond_stage_model\.model\.transformer\.resblocks\.23\..*"
)
"""Tensors that no network needs."""
_V_IN_YAML = re.compile(r"^\s*parameterization:\s*['\"]?v['\"]?\s*$", re.MULTILINE)
MAX_YAML_BYTES = 1 << 16


@dataclass(frozen=True)
class SingleFile:
    """A safetensors file with UNet, text encoder and usually VAE of SD 1 or SD 2.

    Raises:
        WeightsError: from whatever reads the file, where it is damaged.
    """

    path: Path

    @cached_property
    def header(self) -> Header:
        return read_header(self.path)

    @property
    def is_sd2(self) -> bool:
        return self._has(OPEN_CLIP)

    @property
    def has_vae(self) -> bool:
        return self._has(VAE)

    @cached_property
    def digest(self) -> str:
        """A few digits that tell it from others, whatever its name (`files_digest`)."""
        return files_digest({"checkpoint": self.path})

    @cached_property
    def prediction_type(self) -> str | None:
        """What the UNet predicts, `epsilon` or `v_prediction`, as the file or A1111's `.yaml` beside it say.

        None where SD 2 says nothing; SD 1 is `epsilon` then.
        """
        metadata, yaml = self.header.metadata, self.path.with_suffix(".yaml")
        stated = metadata.get("modelspec.prediction_type", "").lower()
        if (
            stated in ("v", V_PREDICTION)
            or "v_pred" in self.header.shapes
            or metadata.get("modelspec.architecture", "").lower().startswith("stable-diffusion-v2-768-v")
            or (yaml.is_file() and yaml.stat().st_size <= MAX_YAML_BYTES and _V_IN_YAML.search(_text(yaml)))
        ):
            return V_PREDICTION
        return EPSILON if stated == EPSILON or yaml.is_file() or not self.is_sd2 else None

    def check(self, needs_vae: bool = True) -> None:
        """Checks by its header alone that it can be used.

        Args:
            needs_vae: whether no other VAE is used in place of its own.

        Raises:
            WeightsError: it is of another family or task, lacks a network, or holds tensors that belong to none.
        """
        shapes = self.header.shapes
        if other := next((family for family, start in OTHER_FAMILIES.items() if self._has(start)), None):
            raise WeightsError(f"{self.path} is of {other}; only checkpoints of SD 1 and SD 2 can be used.")
        if not self._has(UNET):
            raise WeightsError(f"{self.path} holds no UNet of SD 1 or SD 2, so it is no checkpoint that can be used.")
        first = shapes.get(f"{UNET}input_blocks.0.0.weight", ())
        if len(first) != 4 or first[1] != LATENT_CHANNELS:
            taken = f"its UNet takes {first[1] if len(first) == 4 else 'no'} channels, and latents have {LATENT_CHANNELS}"
            raise WeightsError(f"{self.path} is for another task than text to image: {taken}.")
        if not self._has(CLIP) and not self.is_sd2:
            raise WeightsError(f"{self.path} holds no text encoder; get the checkpoint with its text encoder.")
        if needs_vae and not self.has_vae:
            raise WeightsError(f"{self.path} holds no VAE; give one with --vae.")
        kept = [key for key in shapes if not _IGNORED.fullmatch(key)]
        used = _used({key: shapes[key] for key in kept}, self._convert_all, self.path)
        if unused := sorted(set(kept) - used):
            shown = ", ".join(unused[:SHOWN_KEYS]) + (", ..." if len(unused) > SHOWN_KEYS else "")
            family = "SD 2" if self.is_sd2 else "SD 1"
            counts = f"{len(kept) - len(unused)} of its {len(kept)} tensors have a place in {family}'s networks"
            raise WeightsError(f"{self.path} does not fit: {counts}, not {shown}; it is another kind of checkpoint.")

    def load_unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        """Reads the UNet.

        Raises:
            WeightsError: tensors are missing or do not fit together.
        """
        tensors = self._read(UNET, dtype)
        with _fitting(self.path), torch.device("meta"):
            tensors = convert_unet(tensors)
            unet = UNet2DConditionModel.from_config(unet_config(tensors, self.is_sd2)).eval()
        assign_state_dict(unet, tensors, str(self.path), dtype)
        return unet

    def load_vae(self, dtype: torch.dtype) -> AutoencoderKL:
        """Reads the VAE; raises as `load_unet`."""
        return _vae_of(self._read(VAE, dtype), self.path, dtype)

    def load_prompt_encoder(self, dtype: torch.dtype) -> PromptEncoder:
        """Reads the text encoder; raises as `load_unet`."""
        tensors = self._read(OPEN_CLIP if self.is_sd2 else CLIP, dtype)
        tokenizer = clip_tokenizer(pad_token="!" if self.is_sd2 else None)
        with _fitting(self.path):
            tensors = adapt_state_dict(convert_text(tensors))
            config = text_config(tensors, self.is_sd2)
            text_encoder = build_text_encoder(config)
        if config["vocab_size"] != len(tokenizer):
            words = f"a vocabulary of {config['vocab_size']:,} tokens, and CLIP's has {len(tokenizer):,}"
            raise WeightsError(f"the text encoder of {self.path} has {words}; it is another kind of checkpoint.")
        assign_state_dict(text_encoder, tensors, str(self.path), dtype)
        return PromptEncoder(tokenizer, text_encoder)

    def _has(self, start: str) -> bool:
        return any(key.startswith(start) for key in self.header.shapes)

    def _read(self, start: str, dtype: torch.dtype) -> StateDict:
        tensors = read_safetensors(self.path, dtype, start)
        return {key: tensors[key] for key in tensors if key.startswith(start) and not _IGNORED.fullmatch(key)}

    def _convert_all(self, tensors: StateDict) -> Iterable[torch.Tensor]:
        for convert, starts in ((convert_unet, (UNET,)), (convert_vae, (VAE,)), (convert_text, (CLIP, OPEN_CLIP))):
            part = {key: tensors[key] for key in tensors if key.startswith(starts)}
            yield from convert(part).values() if part else ()


def load_vae_file(path: Path, dtype: torch.dtype) -> AutoencoderKL:
    """Reads an AutoencoderKL of SD 1 or SD 2 from a safetensors file of its own, with CompVis's or diffusers' names.

    Raises:
        WeightsError: the file is damaged, or is not such a VAE.
    """
    tensors = read_safetensors(path, dtype)
    return _vae_of({key: tensors[key] for key in tensors if not _IGNORED.fullmatch(key)}, path, dtype)


def _vae_of(tensors: StateDict, path: Path, dtype: torch.dtype) -> AutoencoderKL:
    with _fitting(path):
        converted = convert_vae(tensors)
        vae = build_vae(vae_config(converted))
    used = _used({key: tuple(tensors[key].shape) for key in tensors}, lambda part: convert_vae(part).values(), path)
    if len(used) != len(tensors):
        shown = ", ".join(sorted(tensors.keys() - used)[:SHOWN_KEYS])
        raise WeightsError(f"{path} is not a VAE: {len(used)} of its {len(tensors)} tensors belong to one, not {shown}.")
    assign_state_dict(vae, converted, str(path), dtype)
    return vae


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """What converters and networks raise of names and shapes that are not as they should be, as an error about the file."""
    try:
        yield
    except KeyError as error:
        raise WeightsError(f"{path} lacks the tensor {error}; get it again.") from None
    except (IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"{path} holds tensors of other shapes than SD 1's and SD 2's networks; get it again.") from error


def _used(
    shapes: dict[str, tuple[int, ...]], convert: Callable[[StateDict], Iterable[torch.Tensor]], path: Path
) -> set[str]:
    """The tensors that reach the converted networks, found by converting their numbers in place of their values."""
    names = list(shapes)
    numbers = {
        name: torch.full((*shapes[name][:1], *[1] * (len(shapes[name]) - 1)), number) for number, name in enumerate(names)
    }
    with _fitting(path):
        return {names[number] for tensor in convert(numbers) for number in tensor.unique().tolist()}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
