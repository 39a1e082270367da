"""The last stage before saving: from the networks' output to the picture that the user asked for."""

from __future__ import annotations

import numpy as np
from PIL import Image

from seesr.images.alpha import enlarge_alpha
from seesr.images.icc import convert
from seesr.images.matrix_profiles import convert_samples
from seesr.images.picture import Picture
from seesr.images.resize import resize
from seesr.images.samples import to_8_bit_image, to_integers, to_unit
from seesr.images.sharpen import sharpen, sharpen_samples
from seesr.images.sizes import Sizes


def finish(image: Image.Image, picture: Picture, sizes: Sizes, strength: float) -> Image.Image:
    """Resizes `image` to the output size, sharpens it with `strength`, and restores alpha and colour profile.

    Args:
        image: RGB in the picture's `working` space, of the working size; of a grey picture all channels are equal.
        picture: the input, whose alpha and profile are restored.
    """
    image = convert(sharpen(resize(image, sizes.output), strength), picture.working, picture.profile)
    if picture.mode == "L" and image.mode != "L":
        image = image.getchannel(0)
    return _restore(image, picture, sizes)


def finish_deep(values: np.ndarray, picture: Picture, sizes: Sizes, strength: float) -> tuple[Image.Image, np.ndarray]:
    """As `finish`, without rounding to 8 bits on the way.

    Args:
        values: as `image` of `finish`, `(H, W, 3)`, float32 in 0..1.

    Returns:
        The picture in 8 bits, and its samples: uint16 `(H, W, C)`, C as the mode of the picture says.
    """
    values = sharpen_samples(resize(values, sizes.output), strength)
    converted = convert_samples(values, picture.working, picture.profile)
    if converted is None:  # a profile that works by tables: LittleCMS's 8 bits
        converted = to_unit(np.asarray(convert(to_8_bit_image(values), picture.working, picture.profile)), 255)
    samples = to_integers(converted[..., :1] if picture.mode == "L" else converted, 16)
    image = _restore(to_8_bit_image(converted[..., : samples.shape[2]]), picture, sizes)
    if picture.alpha:
        alpha = np.asarray(image.getchannel("A"))[..., None] * np.uint16(257)
        samples = np.concatenate([samples, alpha], axis=2)
    return image, samples


def _restore(image: Image.Image, picture: Picture, sizes: Sizes) -> Image.Image:
    """Writes profile and alpha of the input into `image`."""
    if picture.profile:
        image.info["icc_profile"] = picture.profile
    if picture.alpha:
        image.putalpha(enlarge_alpha(picture.alpha, sizes.output))
    return image
