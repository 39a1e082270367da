"""A starting point for the small models at which the whole pipeline already returns its input, a little blurred.

From random weights a small autoencoder with GroupNorm spends its first hour learning to carry brightness and colour:
normalisation removes just that. Here, at the start, six channels carry the picture and its negative through every
residual trunk, every residual branch adds nothing, and two channels of each map are constants so large that they alone
make its mean and deviation: GroupNorm (one group) then changes nothing, in a crop as in a large picture, and its affine
part is set to undo it. Networks without normalisation are what super-resolution does best with (Lim et al., CVPRW 2017).
The other channels are random features of the picture, at which nothing that makes the output looks yet. Training learns
detail from its first step. SiLU is passed exactly: silu(x) - silu(-x) = x, of the picture and its negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

CARRIED = 3
CONSTANT = 3.0
"""Of the constants, times the root of the number of channels: the deviation they give a map is `2**0.5` times this."""
LEAST_DEVIATION = 0.02
SURELY_CONSTANT = 8.0
"""Means beyond this have only constants."""
LATENT_GAIN = 2.0
"""Latents are the picture in -1..1, which has a deviation of about a half, times this."""

TRUNK_OF_UNET = ("conv_in", "downsamplers.0.conv", "upsamplers.0.conv", "conv_shortcut", ".conv1")

CENTRE = torch.tensor([0.0, 1.0, 0.0])
FORWARD_PAIR = torch.tensor([0.0, 0.5, 0.5])
LEADING_PAIR = torch.tensor([0.5, 0.5, 0.0])
SMOOTH = torch.tensor([0.25, 0.5, 0.25])


def start_autoencoder(vae: AutoencoderKL, examples: Tensor) -> None:
    """Makes encode a 4x4 box average times `LATENT_GAIN` in latent channels 0-2, and decode its smooth enlargement.

    `examples` `(B, 3, H, W)` in -1..1 are pictures to read the scale of the normalisations from.
    """
    with torch.no_grad():
        _silence_residuals(vae)
        encoder, decoder = vae.encoder, vae.decoder
        _carry(encoder.conv_in, CENTRE)
        _carry(decoder.conv_in, CENTRE, gain=1 / LATENT_GAIN)
        for conv in _named(encoder, "downsamplers.0.conv"):
            _carry(conv, LEADING_PAIR)
        for conv in _named(decoder, "upsamplers.0.conv"):
            _carry(conv, SMOOTH)
        for conv in _named(vae, "conv_shortcut"):
            _carry(conv, CENTRE)
        _carry(encoder.conv_out, CENTRE, gain=LATENT_GAIN, after_silu=True, negatives=False)
        _carry(decoder.conv_out, CENTRE, after_silu=True, negatives=False)
        nn.init.zeros_(encoder.conv_out.weight[vae.config.latent_channels :])
        nn.init.constant_(encoder.conv_out.bias[vae.config.latent_channels :], -6.0)
        for conv in (vae.quant_conv, vae.post_quant_conv):
            nn.init.dirac_(conv.weight)
            nn.init.zeros_(conv.bias)
        for conv in _named(vae, ".conv1"):
            _plant_constants(conv)
        with _undoing(vae, last=[encoder.conv_norm_out, decoder.conv_norm_out]):
            vae.decode(vae.encode(examples).latent_dist.mode())


def start_denoiser(unet: UNet2DConditionModel, controlnet: ControlNetModel, run: Callable[[], object]) -> None:
    """Makes v the negative of the image's latents, so that the first step returns the image it was conditioned on.

    `run` calls both networks once on examples.
    """
    with torch.no_grad():
        for model in (unet, controlnet):
            _silence_residuals(model)
            for ending in TRUNK_OF_UNET:
                for conv in _named(model, ending):
                    _plant_constants(conv)
        embedding = controlnet.controlnet_cond_embedding
        _carry(embedding.conv_in, CENTRE, constant=0.0)
        for conv in embedding.blocks:
            _carry(conv, CENTRE if conv.stride == (1, 1) else FORWARD_PAIR, after_silu=True, constant=0.0)
        # The constants of the trunk that it is added to come from conv_in.
        _carry(embedding.conv_out, CENTRE, after_silu=True, constant=0.0)
        # Nothing of the noise at first.
        for conv in (controlnet.conv_in, unet.conv_in):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias[: 2 * CARRIED])
        for conv in controlnet.controlnet_down_blocks[:2]:
            conv.reset_parameters()
        _carry(controlnet.controlnet_down_blocks[0], CENTRE)
        for conv in controlnet.controlnet_down_blocks[:2]:
            _plant_constants(conv, 0.0)
        last = unet.up_blocks[-1].resnets[-1].conv_shortcut
        _carry(last, CENTRE, first_input=last.in_channels - unet.config.block_out_channels[0])
        # The ControlNet sees the picture in 0..1, the latents are made of it in -1..1.
        _carry(unet.conv_out, CENTRE, gain=-2 * LATENT_GAIN, after_silu=True, negatives=False)
        unet.conv_out.weight[CARRIED:] = 0
        unet.conv_out.bias[:CARRIED] += LATENT_GAIN
        unet.conv_out.bias[CARRIED:] = 0
        with _undoing(unet, controlnet, last=[unet.conv_norm_out]):
            run()


@contextmanager
def _undoing(*models: nn.Module, last: list[nn.GroupNorm]) -> Iterator[None]:
    """While examples go through, each GroupNorm's affine part is set to give every channel mean 0 and deviation 1, for
    SiLU to bend it (Mishkin and Matas, ICLR 2016), or as it was where the picture itself goes through, in `last`; and
    nothing of the constants, which convolutions overlook as well: they would make every weight a large bias."""

    def undo(norm: nn.GroupNorm, args: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(args[0], dim=(1, 2, 3), correction=0)
        deviation, mean = (variance + norm.eps).sqrt().mean(), mean.mean()
        own_deviation, own_mean = torch.std_mean(args[0], dim=(0, 2, 3))
        gain, centre = 1 / own_deviation.clamp(min=LEAST_DEVIATION), own_mean
        if norm in last:
            gain[: 2 * CARRIED], centre[: 2 * CARRIED] = 1.0, 0.0
            _mark_delicate(norm)
        constant = own_mean.abs() > SURELY_CONSTANT
        norm.weight.copy_(torch.where(constant, 0.0, gain * deviation))
        norm.bias.copy_(torch.where(constant, 0.0, gain * (mean - centre)))

    def overlook(conv: nn.Conv2d, args: tuple[Tensor, ...]) -> None:
        varies = (args[0].mean(dim=(0, 2, 3)).abs() <= SURELY_CONSTANT).to(conv.weight.dtype)[None, :, None, None]
        conv.weight.mul_(varies)
        # And it stays so: a step of Adam's would be as large as for any other weight, and shift the output by much more.
        conv.weight.register_hook(lambda gradient: gradient * varies.to(gradient))

    norms = [module for model in models for module in model.modules() if isinstance(module, nn.GroupNorm)]
    convs = [module for model in models for module in model.modules() if isinstance(module, nn.Conv2d)]
    handles = [norm.register_forward_pre_hook(undo) for norm in norms]
    handles += [conv.register_forward_pre_hook(overlook) for conv in convs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _plant_constants(conv: nn.Conv2d, size: float = CONSTANT) -> None:
    """Makes the last two outputs of `conv` constants, of opposite signs."""
    weight, bias = conv.parameters()
    weight[-2:] = 0
    bias[-2:] = size * conv.out_channels**0.5 * torch.tensor([1.0, -1.0])


def _mark_delicate(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.delicate = True  # pyright: ignore[reportAttributeAccessIssue] # a mark of ours


@torch.no_grad()
def smooth_upsampling(*models: nn.Module) -> None:
    """Makes the convolution after each enlargement a mixture of channels times one smooth kernel.

    With it, doubling pixels is bilinear enlargement. Any other kernel leaves stairs on slopes, which the layers that follow
    turn into a weave: every second line with more energy than its neighbours.
    """
    kernel = torch.outer(SMOOTH, SMOOTH)
    for model in models:
        for conv in _named(model, "upsamplers.0.conv"):
            on = kernel.to(conv.weight)
            mixture = (conv.weight * on).sum(dim=(2, 3), keepdim=True) / (on * on).sum()
            conv.weight.copy_(mixture * on)


def is_delicate(parameter: nn.Parameter) -> bool:
    """Whether `parameter` carries the picture itself, so that training should change it slowly."""
    return getattr(parameter, "delicate", False)


def _silence_residuals(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        # Not attention's own outputs as well: what is zero twice in a row has no gradient to begin with.
        if ".conv2." in name or ".proj_out." in name:
            nn.init.zeros_(parameter)


def _named(model: nn.Module, ending: str) -> list[nn.Conv2d]:
    found = [module for name, module in model.named_modules() if name.endswith(ending)]
    return [module for module in found if isinstance(module, nn.Conv2d)]


def _carry(
    conv: nn.Conv2d,
    kernel: Tensor,
    gain: float = 1.0,
    after_silu: bool = False,
    negatives: bool = True,
    constant: float = CONSTANT,
    first_input: int = 0,
) -> None:
    """Lets outputs 0-2 of `conv` be inputs 0-2 blurred by `kernel`, times `gain`.

    With `negatives` outputs 3-5 are their negatives and the last two are constants; the rest is as it was. `after_silu`
    takes inputs 3-5 for the negatives, and the difference of both for what was there before the SiLU.
    """
    taps = gain * (kernel[:, None] * kernel if conv.kernel_size == (3, 3) else torch.ones(1, 1))
    carried = 2 * CARRIED if negatives else CARRIED
    if negatives:
        _plant_constants(conv, constant)
    weight, bias = conv.parameters()
    weight[:carried] = 0
    bias[:carried] = 0
    for channel in range(carried):
        # A negative copy keeps the mean over channels, which normalisation subtracts, at zero.
        sign = 1 if channel < CARRIED else -1
        source = first_input + channel % CARRIED
        weight[channel, source] = sign * taps
        if after_silu:
            weight[channel, source + CARRIED] = -sign * taps
    _mark_delicate(conv)
