"""The last stage before saving: from the networks' output to the picture that the user asked for."""

from __future__ import annotations

from PIL import Image

from seesr.images.alpha import enlarge_alpha
from seesr.images.icc import convert
from seesr.images.read import Picture
from seesr.images.resize import resize
from seesr.images.sharpen import sharpen
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
    if picture.profile:
        image.info["icc_profile"] = picture.profile
    if picture.alpha:
        image.putalpha(enlarge_alpha(picture.alpha, sizes.output))
    return image
