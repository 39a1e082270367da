"""SeeSR's image attention (Wu et al., CVPR 2024, section 3.2) on stock diffusers blocks.

After each text transformer `attentions[i]` of a UNet or ControlNet block stands a second one, `image_attentions[i]`, of
the same shape, that attends to RAM's image tokens instead of text. The tokens travel in diffusers' own
`cross_attention_kwargs`, so no block code is repeated here and a model holds no state between calls.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models import Transformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

IMAGE_TOKEN_WIDTH = 512
IMAGE_TOKENS = "image_hidden_states"


class Transformer(Transformer2DModel):
    """diffusers' own, which leaves a map channels last where it came so instead of turning it round for the next layer to
    turn it back: a tenth of the denoiser's time on a CPU."""

    def _get_output_for_continuous_inputs(
        self, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
    ) -> Tensor:
        if not self.use_linear_projection or residual.is_contiguous():
            return super()._get_output_for_continuous_inputs(hidden_states, residual, batch_size, height, width, inner_dim)
        made = self.proj_out(hidden_states)
        return made.view(batch_size, height, width, inner_dim).permute(0, 3, 1, 2) + residual


class TextThenImageTransformer(Transformer):
    """A text transformer that hands its output to its image transformer.

    The image transformer belongs to the block (`image_attentions[i]`, the published name), so it is kept here out of
    the module tree.
    """

    def follow_with(self, image_attention: Transformer) -> None:
        """Sets the transformer that runs on this one's output."""
        self._following = (image_attention,)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """As `Transformer2DModel.forward`; the image transformer runs if `cross_attention_kwargs` holds
        `image_hidden_states` `(B, tokens, 512)`. Without them the network computes what the base's own does."""
        rest = dict(cross_attention_kwargs or {})
        tokens = rest.pop(IMAGE_TOKENS, None)
        output = super().forward(
            hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            cross_attention_kwargs=rest or None,
            return_dict=return_dict and tokens is None,
            **others,
        )
        if tokens is None:
            return output
        (image_attention,) = self._following
        return image_attention(output[0], encoder_hidden_states=tokens, return_dict=return_dict)


def build_unet(config: dict[str, Any]) -> UNet2DConditionModel:
    """A SeeSR UNet of a published or small `config.json`, with unset weights on the meta device."""
    return _build(UNet2DConditionModel, config)


def build_controlnet(config: dict[str, Any]) -> ControlNetModel:
    """A SeeSR ControlNet of a published or small `config.json`, with unset weights on the meta device."""
    return _build(ControlNetModel, config)


def _build(model_class: type[nn.Module], config: dict[str, Any]) -> nn.Module:
    known = {key: value for key, value in config.items() if key != "use_image_cross_attention"}
    with torch.device("meta"):
        model = model_class.from_config(known)
        for block in [*model.down_blocks, model.mid_block, *getattr(model, "up_blocks", [])]:
            if hasattr(block, "attentions"):
                _add_image_attentions(block)
    return model.eval()


def _add_image_attentions(block: nn.Module) -> None:
    configs = [{key: old.config[key] for key in old.config if not key.startswith("_")} for old in block.attentions]
    text_transformers = [TextThenImageTransformer(**config) for config in configs]
    image_transformers = [Transformer(**config | {"cross_attention_dim": IMAGE_TOKEN_WIDTH}) for config in configs]
    for text, image in zip(text_transformers, image_transformers, strict=True):
        text.follow_with(image)
    block.attentions = nn.ModuleList(text_transformers)
    block.image_attentions = nn.ModuleList(image_transformers)
