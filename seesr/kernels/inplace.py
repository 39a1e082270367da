"""The VAE's blocks with the same result from fewer passes over memory, and its attention by `attend`."""

from __future__ import annotations

from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from seesr.kernels.attention import MathAttentionProcessor


class InplaceResnet(nn.Module):
    """A VAE's `ResnetBlock2D`, on the same layers: activations overwrite a normalisation's result, which nobody else reads,
    and nothing is divided by one."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.nonlinearity, self.conv_shortcut = block.nonlinearity, block.conv_shortcut
        self.output_scale_factor = block.output_scale_factor

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        hidden = self.conv1(self.nonlinearity(self.norm1(x)))
        hidden = self.conv2(self.nonlinearity(self.norm2(hidden)))
        made = hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return made if self.output_scale_factor == 1 else made / self.output_scale_factor


def use_inplace_blocks(vae: AutoencoderKL) -> None:
    """Replaces every `ResnetBlock2D` of `vae` by `InplaceResnet`, lets every SiLU overwrite its input, and computes
    attention by `MathAttentionProcessor`."""
    for parent in list(vae.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, ResnetBlock2D):
                setattr(parent, name, InplaceResnet(module))
            elif isinstance(module, nn.SiLU):
                module.inplace = True
            elif isinstance(module, Attention):
                module.set_processor(MathAttentionProcessor())
