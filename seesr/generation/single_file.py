"""Checkpoints in one safetensors file, in the layout of CompVis (SD 1) and of Stability AI (SD 2), and VAEs in one file.

diffusers' converters rename the tensors; the networks' configs follow from the names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)

from seesr.autoencoder.vae import build_vae, current_name
from seesr.diffusion.text import PromptEncoder, adapt_state_dict, build_text_encoder, clip_tokenizer
from seesr.errors import WeightsError
from seesr.generation.tensor_names import CLIP, OPEN_CLIP, OTHER_FAMILIES, UNET, VAE
from seesr.weights.header import Header, read_header
from seesr.weights.resolve import files_digest
from seesr.weights.state_dict import SHOWN_KEYS, assign_state_dict
from seesr.weights.tensors import StateDict, read_safetensors

LATENT_CHANNELS = 4
NATIVE_LATENTS, NATIVE_LATENTS_OF_V = 64, 96
"""Latent pixels of a side that SD was trained with; 96 where SD 2 predicts v."""
HEADS, HEAD_WIDTH = 8, 64
"""Heads of each attention of SD 1's UNet; channels of a head of SD 2's and of both text encoders."""
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
SCALING_FACTOR = 0.18215
"""Of the latents of both families' VAEs."""
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
            tensors = _convert_unet(tensors)
            unet = UNet2DConditionModel.from_config(_unet_config(tensors, self.is_sd2)).eval()
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
            tensors = adapt_state_dict(_convert_text(tensors))
            config = _text_config(tensors, self.is_sd2)
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
        for convert, starts in ((_convert_unet, (UNET,)), (_convert_vae, (VAE,)), (_convert_text, (CLIP, OPEN_CLIP))):
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
        converted = _convert_vae(tensors)
        vae = build_vae(_vae_config(converted))
    used = _used({key: tuple(tensors[key].shape) for key in tensors}, lambda part: _convert_vae(part).values(), path)
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


# From CompVis's names to diffusers'.


def _convert_unet(tensors: StateDict) -> StateDict:
    # The first downsampling follows the first level's blocks and the first convolution.
    numbers = [int(key[len(UNET) :].split(".")[1]) for key in tensors if ".0.op.weight" in key and "input_blocks" in key]
    first = min(numbers, default=_count(tensors, f"{UNET}input_blocks."))
    return _without_none(convert_ldm_unet_checkpoint(tensors, {"layers_per_block": max(first - 1, 0)}))


def _convert_vae(tensors: StateDict) -> StateDict:
    tensors = {key.removeprefix(VAE): tensor for key, tensor in tensors.items()}
    if any(key.startswith("encoder.down_blocks.") for key in tensors):
        return {current_name(key): tensor for key, tensor in tensors.items()}
    levels = [""] * _count(tensors, "encoder.down.")
    return _without_none(convert_ldm_vae_checkpoint(tensors, {"down_block_types": levels, "up_block_types": levels}))


def _convert_text(tensors: StateDict) -> StateDict:
    if not any(key.startswith(OPEN_CLIP) for key in tensors):
        return _without_none(convert_ldm_clip_checkpoint(tensors))
    # Of the model the converter reads nothing but its width.
    model: Any = SimpleNamespace(config=SimpleNamespace(hidden_size=len(tensors[f"{OPEN_CLIP}ln_final.weight"])))
    return _without_none(convert_open_clip_checkpoint(model, tensors, OPEN_CLIP))


def _without_none(tensors: dict[str, Any]) -> StateDict:
    """Converters give None for some of the tensors that lack."""
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


# Configs of what has diffusers' names.


def _unet_config(tensors: StateDict, is_sd2: bool) -> dict[str, Any]:
    levels = range(_count(tensors, "down_blocks."))
    channels = [len(tensors[f"down_blocks.{level}.resnets.0.conv1.weight"]) for level in levels]

    def kinds(way: str) -> list[str]:
        crossed = [_count(tensors, f"{way.lower()}_blocks.{level}.attentions.") for level in levels]
        return [f"CrossAttn{way}Block2D" if count else f"{way}Block2D" for count in crossed]

    from_prompt = (tensor.shape[1] for name, tensor in tensors.items() if name.endswith("attn2.to_k.weight"))
    projections = (tensor.dim() for name, tensor in tensors.items() if name.endswith("proj_in.weight"))
    return {
        "sample_size": NATIVE_LATENTS,
        "in_channels": tensors["conv_in.weight"].shape[1],
        "out_channels": len(tensors["conv_out.weight"]),
        "block_out_channels": channels,
        "down_block_types": kinds("Down"),
        "up_block_types": kinds("Up"),
        "layers_per_block": _count(tensors, "down_blocks.0.resnets."),
        "cross_attention_dim": next(from_prompt, None),
        "attention_head_dim": [count // HEAD_WIDTH for count in channels] if is_sd2 else HEADS,
        "use_linear_projection": next(projections, 4) == 2,
    }


def _vae_config(tensors: StateDict) -> dict[str, Any]:
    levels = range(_count(tensors, "encoder.down_blocks."))
    return {
        "block_out_channels": [len(tensors[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"]) for level in levels],
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "layers_per_block": _count(tensors, "encoder.down_blocks.0.resnets."),
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in tensors,
        "scaling_factor": SCALING_FACTOR,
    }


def _text_config(tensors: StateDict, is_sd2: bool) -> dict[str, Any]:
    vocabulary, width = tensors["embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": len(tensors["encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": _count(tensors, "encoder.layers."),
        "num_attention_heads": width // HEAD_WIDTH,
        "max_position_embeddings": len(tensors["embeddings.position_embedding.weight"]),
        "hidden_act": "gelu" if is_sd2 else "quick_gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _count(names: Iterable[str], start: str) -> int:
    """How many different parts follow `start` in the names."""
    return len({name[len(start) :].partition(".")[0] for name in names if name.startswith(start)})


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
