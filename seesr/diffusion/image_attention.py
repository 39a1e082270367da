"""SeeSR's image attention (Wu et al., CVPR 2024, section 3.2) on stock diffusers blocks.

Each text transformer `attentions[i]` of a UNet or ControlNet block is followed by a second one of the same shape,
`image_attentions[i]`, that attends to RAM's image tokens instead of text. The tokens are passed in `cross_attention_kwargs`
of diffusers, so no code of the blocks is repeated here and a model holds no state between calls.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models import Transformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

Model = TypeVar("Model", UNet2DConditionModel, ControlNetModel)

IMAGE_TOKEN_WIDTH = 512
IMAGE_TOKENS_KEY = "image_hidden_states"
"""Key of the image tokens in `cross_attention_kwargs`."""


class ChannelsLastTransformer(Transformer2DModel):
    """`Transformer2DModel` that returns a channels-last map for a channels-last input. The stock one returns a contiguous
    map, which the next layer converts back: a tenth of the denoiser's time on a CPU."""

    def _get_output_for_continuous_inputs(
        self, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
    ) -> Tensor:
        if not self.use_linear_projection or residual.is_contiguous():
            return super()._get_output_for_continuous_inputs(hidden_states, residual, batch_size, height, width, inner_dim)
        output = self.proj_out(hidden_states)
        return output.view(batch_size, height, width, inner_dim).permute(0, 3, 1, 2) + residual


class TextThenImageTransformer(ChannelsLastTransformer):
    """A text transformer that passes its output to its image transformer.

    The image transformer is a child of the block (`image_attentions[i]`, the published name). Here it is stored in a tuple,
    so that it is not a child of this module too.
    """

    def set_image_transformer(self, image_transformer: ChannelsLastTransformer) -> None:
        """Sets the transformer that runs on the output of this one."""
        self._image_transformer = (image_transformer,)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Like `Transformer2DModel.forward`; the image transformer runs if `cross_attention_kwargs` holds
        `image_hidden_states` `(B, tokens, 512)`. Without them the UNet computes the same as the base model's UNet."""
        attention_kwargs = dict(cross_attention_kwargs or {})
        image_tokens = attention_kwargs.pop(IMAGE_TOKENS_KEY, None)
        output = super().forward(
            hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            cross_attention_kwargs=attention_kwargs or None,
            return_dict=return_dict and image_tokens is None,
            **kwargs,
        )
        if image_tokens is None:
            return output
        (image_transformer,) = self._image_transformer
        return image_transformer(output[0], encoder_hidden_states=image_tokens, return_dict=return_dict)


def build_unet(config: dict[str, Any]) -> UNet2DConditionModel:
    """Builds a SeeSR UNet from a `config.json`, with weights on the meta device."""
    return _build(UNet2DConditionModel, config)


def build_controlnet(config: dict[str, Any]) -> ControlNetModel:
    """Builds a SeeSR ControlNet from a `config.json`, with weights on the meta device."""
    return _build(ControlNetModel, config)


def _build(model_class: type[Model], config: dict[str, Any]) -> Model:
    stock_config = {key: value for key, value in config.items() if key != "use_image_cross_attention"}
    with torch.device("meta"):
        model = model_class.from_config(stock_config)
        for block in [*model.down_blocks, model.mid_block, *getattr(model, "up_blocks", [])]:
            if hasattr(block, "attentions"):
                _add_image_attentions(block)
    return model.eval()


def _add_image_attentions(block: Any) -> None:
    configs = [{key: layer.config[key] for key in layer.config if not key.startswith("_")} for layer in block.attentions]
    text_transformers = [TextThenImageTransformer(**config) for config in configs]
    image_transformers = [
        ChannelsLastTransformer(**config | {"cross_attention_dim": IMAGE_TOKEN_WIDTH}) for config in configs
    ]
    for text, image in zip(text_transformers, image_transformers, strict=True):
        text.set_image_transformer(image)
    block.attentions = nn.ModuleList(text_transformers)
    block.image_attentions = nn.ModuleList(image_transformers)
