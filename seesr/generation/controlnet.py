"""ControlNet (Zhang et al., ICCV 2023) for generation: which folders fit a checkpoint, and the UNet that they steer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from PIL import Image
from torch import Tensor

from seesr.components import NetworkSpec
from seesr.errors import WeightsError
from seesr.generation.controls import ControlUnit
from seesr.generation.library import ModelPlace, require_no_code
from seesr.generation.model_file import WIDTHS
from seesr.generation.wrapped_unet import WrappedUNet
from seesr.images.resize import resize, to_tensor
from seesr.images.sizes import Size
from seesr.weights.config import read_config
from seesr.weights.header import read_header
from seesr.weights.resolve import folder_digest
from seesr.weights.state_dict import DIFFUSERS_FILE, load_network

CLASS = "ControlNetModel"


@dataclass(frozen=True, eq=False)
class Control:
    """A unit whose ControlNet fits the checkpoint, with its map."""

    unit: ControlUnit[Any]
    digest: str
    """Tells the ControlNet's files from others (`folder_digest`)."""
    spec: NetworkSpec
    map: Image.Image
    """RGB; it is resized to each pass."""

    def settings(self) -> dict[str, str | float]:
        """What is written into a file of it, under the names of `ControlUnit`."""
        unit = self.unit
        return {
            "name": unit.name,
            "digest": self.digest,
            "weight": unit.weight,
            "start": unit.start,
            "end": unit.end,
            "preprocessor": unit.preprocessor,
        }

    def hint(self, size: Size) -> Tensor:
        """The map as a ControlNet takes it: `(1, 3, H, W)` in 0..1, float32."""
        return to_tensor(resize(self.map, size))


class ControlledUNet(WrappedUNet):
    """A UNet to whose skip connections ControlNets add, each times its weight, as in diffusers' pipelines.

    Several add up before the UNet runs. Where none is at work the UNet runs as without them, bit for bit.

    Args:
        controls: each ControlNet with its unit and hint.
        steps: calls of the scheduler in this pass, of which `step` is the present one.
    """

    def __init__(
        self, unet: torch.nn.Module, controls: Sequence[tuple[ControlNetModel, ControlUnit[Any], Tensor]], steps: int
    ) -> None:
        super().__init__(unet)
        self.controls, self.steps, self.step = controls, steps, 0

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **options: Any) -> Any:
        down: list[Tensor] = []
        middle: Tensor | None = None
        for network, unit, hint in self.controls:
            if self.step / self.steps < unit.start or (self.step + 1) / self.steps > unit.end:
                continue
            to_down, to_middle = network(
                sample,
                timestep,
                encoder_hidden_states=encoder_hidden_states,
                controlnet_cond=hint.to(sample).expand(len(sample), -1, -1, -1),
                conditioning_scale=unit.weight,
                return_dict=False,
            )
            down = [first + second for first, second in zip(down, to_down, strict=True)] if down else to_down
            middle = to_middle if middle is None else middle + to_middle
        if middle is not None:
            options |= {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self.unet(sample, timestep, encoder_hidden_states=encoder_hidden_states, **options)


def make_control(
    unit: ControlUnit[Any],
    folder: ModelPlace,
    control_map: Image.Image,
    unet: Any,
    factor: int,
    checkpoint: str,
    dtype: torch.dtype,
) -> Control:
    """A unit with its ControlNet, of which only the config is read here.

    Args:
        unet: the UNet of `checkpoint`, that it is to steer.
        factor: pixels for each latent pixel.

    Raises:
        WeightsError: the folder holds no ControlNet, or one that does not fit or cannot be used.
    """
    file = _weights_file(folder)
    _check_config(folder, unet.config, factor, checkpoint)
    digest = folder_digest(folder.path, ["."])
    load = partial(load_network, folder.path, partial(_build, folder.name), dtype, stem=file.stem)
    spec = NetworkSpec(f"controlnet {folder.name} {digest}", load, has_denoiser_attention=True)
    return Control(unit, digest, spec, control_map)


def _weights_file(folder: ModelPlace) -> Path:
    """The file of the weights: the whole one, or the only one.

    Raises:
        WeightsError: there is none, or the folder holds code or SeeSR's own ControlNet.
    """
    path, name = folder.path, folder.name
    require_no_code(path, f"the ControlNet {name}")
    files = sorted(path.glob(f"{DIFFUSERS_FILE}*.safetensors"), key=lambda file: len(file.name))
    if not files:
        raise WeightsError(
            f"the ControlNet {name} has no {DIFFUSERS_FILE}.safetensors, and no other file is read; get it as safetensors."
        )
    if any("image_attentions" in key for key in read_header(files[0]).shapes):
        raise WeightsError(f"the ControlNet {name} is SeeSR's own, which is for upscaling; use another.")
    return files[0]


def _check_config(folder: ModelPlace, unet: Any, factor: int, checkpoint: str) -> None:
    """Raises WeightsError if the ControlNet's config says that it does not fit a UNet of this config."""
    name, config = folder.name, read_config(folder.path / "config.json")
    if (found := config.get("_class_name")) != CLASS:
        what = found if isinstance(found, str) else "no class"
        raise WeightsError(
            f"the ControlNet {name} asks for {what}; only {CLASS} of diffusers, for SD 1 and SD 2, can be used."
        )
    width, wanted = config.get("cross_attention_dim"), unet.cross_attention_dim
    if isinstance(width, int) and width != wanted:
        family, of = WIDTHS.get(width, "other checkpoints"), f" ({WIDTHS[wanted]})" if wanted in WIDTHS else ""
        raise WeightsError(
            f"the ControlNet {name} is for {family}, with prompt embeddings of {width}, and {checkpoint} has {wanted}{of}."
        )
    network = _build(name, config).config
    needed = {
        "cross_attention_dim": wanted,
        "in_channels": unet.in_channels,
        "block_out_channels": unet.block_out_channels,
        "layers_per_block": unet.layers_per_block,
        "conditioning_channels": 3,
        "global_pool_conditions": False,
        "addition_embed_type": None,
    }
    for key, value in needed.items():
        if (found := getattr(network, key)) != value and (not isinstance(value, list | tuple) or [*found] != [*value]):
            raise WeightsError(f"the ControlNet {name} does not fit {checkpoint}: its {key} is {found} instead of {value}.")
    halvings = len(network.conditioning_embedding_out_channels) - 1
    if 2**halvings != factor:
        raise WeightsError(
            f"the ControlNet {name} does not fit {checkpoint}: it reduces its map {2**halvings} times, and latents are "
            f"{factor} times smaller."
        )


def _build(name: str, config: dict[str, Any]) -> ControlNetModel:
    """The network on the meta device.

    Raises:
        WeightsError: the config cannot be.
    """
    try:
        with torch.device("meta"):
            return ControlNetModel.from_config(config).eval()
    # A config may say anything.
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise WeightsError(
            f"the config.json of the ControlNet {name} cannot be used ({type(error).__name__}); get it again."
        ) from error
