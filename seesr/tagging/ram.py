"""RAM, the Recognize Anything Model (Zhang et al., CVPR Workshops 2024): tags and image tokens of a picture.

Only the encoder, the projections and the tag head are built; tagging does not use the published text decoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seesr.errors import WeightsError
from seesr.tagging.dape import UNUSED_PREFIXES, merge_dape
from seesr.tagging.efficientnet import BlockConfig, EfficientNet
from seesr.tagging.swin import SwinTransformer
from seesr.tagging.tag_head import TagHead
from seesr.weights.config import read_config
from seesr.weights.state_dict import assign_state_dict, read_state_dict
from seesr.weights.tensors import StateDict

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LEGACY_HEAD = "vision_multi."
"""Prefix of the tag head in older checkpoints."""
COMPUTED_BUFFERS = ("relative_position_index", "attn_mask")
"""Tensors of published checkpoints that are computed here from the config."""


@dataclass(frozen=True)
class SwinConfig:
    """Sizes of a Swin; the defaults are Swin-L."""

    window_size: int = 12
    embed_dim: int = 192
    depths: list[int] = field(default_factory=lambda: [2, 2, 18, 2])
    num_heads: list[int] = field(default_factory=lambda: [6, 12, 24, 48])

    @property
    def width(self) -> int:
        """Width of the tokens."""
        return self.embed_dim * 2 ** (len(self.depths) - 1)

    def build(self, image_size: int) -> nn.Module:
        return SwinTransformer(image_size, self.embed_dim, self.depths, self.num_heads, self.window_size)


@dataclass(frozen=True)
class EfficientNetConfig:
    """Sizes of an EfficientNet."""

    stem: int
    blocks: list[BlockConfig]
    width: int
    """Width of the tokens."""

    def build(self, image_size: int) -> nn.Module:
        """Builds the encoder, which accepts images of any size."""
        return EfficientNet(self.stem, self.blocks, self.width)


@dataclass(frozen=True)
class RAMConfig:
    """Sizes of a RAM; the defaults are the published Swin-L model, which has no `config.json`."""

    num_tags: int = 4585
    token_width: int = 512
    """Width of the image tokens for SeeSR's image attention."""
    image_size: int = 384
    encoder: SwinConfig | EfficientNetConfig = field(default_factory=SwinConfig)
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 4
    num_hidden_layers: int = 2
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> RAMConfig:
        """From a `config.json` with `bert` and either `swin` or `efficientnet`."""
        bert = config["bert"]
        return cls(
            num_tags=config["num_tags"],
            token_width=bert["encoder_width"],
            image_size=config["image_size"],
            encoder=_encoder_config(config),
            hidden_size=bert["hidden_size"],
            intermediate_size=bert["intermediate_size"],
            num_attention_heads=bert["num_attention_heads"],
            num_hidden_layers=bert["num_hidden_layers"],
            layer_norm_eps=bert["layer_norm_eps"],
        )


def _encoder_config(config: dict[str, Any]) -> SwinConfig | EfficientNetConfig:
    if "efficientnet" in config:
        sizes = config["efficientnet"]
        blocks = [BlockConfig(**block) for block in sizes["blocks"]]
        return EfficientNetConfig(sizes["stem"], blocks, sizes["width"])
    if "swin" not in config:
        raise KeyError("swin or efficientnet")
    swin = config["swin"]
    return SwinConfig(swin["window_size"], swin["embed_dim"], swin["depths"], swin["num_heads"])


class RAM(nn.Module):
    """Computes the tag logits and the image tokens of pictures.

    Buffers that are computed from the config are on the CPU even under `torch.device("meta")`.
    """

    def __init__(self, config: RAMConfig) -> None:
        super().__init__()
        self.config = config
        self.visual_encoder = config.encoder.build(config.image_size)
        self.image_proj = nn.Linear(config.encoder.width, config.token_width)
        self.label_embed = nn.Parameter(torch.zeros(config.num_tags, config.token_width))
        self.wordvec_proj = nn.Linear(config.token_width, config.hidden_size)
        self.tagging_head = TagHead(
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_hidden_layers,
            config.token_width,
            config.layer_norm_eps,
        )
        self.fc = nn.Linear(config.hidden_size, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens and logits of RGB `(B, 3, H, W)` in 0..1; see `encode` and `logits`."""
        tokens = self.encode(image)
        return tokens, self.logits(tokens)

    def encode(self, image: Tensor) -> Tensor:
        """Image tokens `(B, n, 512)` of RGB `(B, 3, H, W)` in 0..1 of any size; the first is the mean of the others.

        At full size n is 145.
        """
        return self.image_proj(self.visual_encoder(self.normalize(image)))

    def normalize(self, image: Tensor) -> Tensor:
        """`image` resized to the encoder's size and normalised with ImageNet's mean and deviation, in the model's dtype.

        It is resized in float32: on CPUs PyTorch has no antialiased kernel for half precision.
        """
        side, image = self.config.image_size, image.float()
        if image.shape[-2:] != (side, side):
            image = F.interpolate(image, size=(side, side), mode="bilinear", antialias=True)
        mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return ((image - mean) / std).to(self.image_proj.weight.dtype)

    def logits(self, image_tokens: Tensor) -> Tensor:
        """Logits of all tags `(B, num_tags)`; the sigmoid of a logit is the confidence."""
        queries = F.relu(self.wordvec_proj(self.label_embed)).expand(len(image_tokens), -1, -1)
        return self.fc(self.tagging_head(queries, image_tokens)).squeeze(-1)


def load_ram(
    folder: Path, with_dape: bool = True, dtype: torch.dtype = torch.float32, token_width: int | None = None
) -> RAM:
    """Reads RAM from a `ram/` folder in the published layout and merges DAPE.

    Args:
        token_width: width of the image tokens that the image attention needs; None is not checked.

    Raises:
        WeightsError: a file is missing, the config is wrong, or the tensors do not fit it.
    """
    config_file = folder / "config.json"
    try:
        config = RAMConfig.from_dict(read_config(config_file)) if config_file.exists() else RAMConfig()
        with torch.device("meta"):
            ram = RAM(config).eval()
    except KeyError as error:
        raise WeightsError(f"{config_file} lacks {error}.") from None
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"RAM cannot be built from {config_file} ({error}).") from None
    if token_width not in (None, config.token_width):
        raise WeightsError(f"RAM's encoder_width is {config.token_width}; SeeSR's image attention needs {token_width}.")
    state_dict = adapt_published(read_state_dict(folder, "ram_*", drop_prefixes=UNUSED_PREFIXES))
    if with_dape:
        state_dict = merge_dape(state_dict, read_state_dict(folder, "DAPE"))
    assign_state_dict(ram, state_dict, str(folder), dtype)
    return ram


def adapt_published(state_dict: StateDict) -> StateDict:
    """A published state dict without the tensors that tagging does not use, and with the tag head's current name."""
    return {
        key.replace(LEGACY_HEAD, "tagging_head.", 1) if key.startswith(LEGACY_HEAD) else key: tensor
        for key, tensor in state_dict.items()
        if not key.startswith(UNUSED_PREFIXES) and not key.endswith(COMPUTED_BUFFERS)
    }
