"""The last stage before saving: from the networks' output to the picture that the user asked for."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

from seesr.images.read import Picture
from seesr.images.resize import resize
from seesr.images.sharpen import sharpen
from seesr.images.sizes import Sizes


def finish(image: Image.Image, picture: Picture, sizes: Sizes, strength: float) -> Image.Image:
    """Resizes `image` to the output size, sharpens it with `strength`, and restores alpha, colour profile and EXIF.

    Args:
        image: RGB in sRGB, of the working size.
        picture: the input, whose alpha, profile and EXIF are restored.
    """
    image = sharpen(resize(image, sizes.output), strength)
    if picture.profile:
        srgb, profile = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(picture.profile))
        converted = ImageCms.profileToProfile(image, srgb, profile, outputMode="RGB")
        assert converted is not None  # it is None only in place
        image = converted
        image.info["icc_profile"] = picture.profile
    if picture.exif:
        image.info["exif"] = picture.exif
    if picture.alpha:
        image.putalpha(resize(picture.alpha, sizes.output))
    return image
