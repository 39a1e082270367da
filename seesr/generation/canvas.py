"""What the pictures of a job begin from: nothing, a picture, or a picture of which a part is painted anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from PIL import Image, ImageOps

from seesr.generation import masks
from seesr.generation.options import GenerationOptions
from seesr.images.encoded import ImageSource
from seesr.images.picture import Picture
from seesr.images.read import read_picture
from seesr.images.sizes import Size
from seesr.notes import Notes
from seesr.options import Limits

HALF = 128
"""Of a mask's white."""


@dataclass(frozen=True)
class Canvas:
    """What the pictures of a job begin from."""

    size: Size
    """Of the finished pictures, before a second pass or `upscale` enlarges them."""
    image: Image.Image | None = None
    mask: Image.Image | None = None
    """L, of the size of `image`: where it is painted anew."""
    finish: Callable[[Image.Image], Image.Image] | None = None
    """Makes the finished picture of what the networks gave."""
    notes: Notes = field(default_factory=Notes)
    """What the user should know about the input."""
    profile: bytes | None = None
    """ICC profile of the numbers of `image`, which the finished pictures get; None is sRGB."""
    work: Size | None = None
    """Size at which the networks work, if not that of the finished pictures."""
    frame: tuple[Size, tuple[int, int, int, int]] | None = None
    """Size of the picture of which only a box is worked on, and the box: left, top, right, bottom."""

    def framed(self, picture: Image.Image, size: Size) -> Image.Image:
        """Of another picture what lies where the networks work, at `size`; other proportions are cropped at two sides."""
        if self.frame is None:
            return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        whole, box = self.frame
        return ImageOps.fit(picture, whole, Image.Resampling.LANCZOS).crop(box).resize(size, Image.Resampling.LANCZOS)

    def takes_second_pass(self, options: GenerationOptions) -> bool:
        """Whether a second pass is asked for and made: not where only a part is painted anew."""
        return bool(options.second_pass) and self.finish is None


def make_canvas(
    options: GenerationOptions, native: int, limits: Limits, image: ImageSource | None, mask: ImageSource | None
) -> Canvas:
    """Reads the picture and the mask, if there are any.

    Args:
        native: pixels of a side that pictures from noise have where no width or height is asked for.

    Raises:
        InputError: the picture or the mask cannot be used, or they differ in size.
    """
    asked = options.width or native, options.height or native
    if image is None:
        return Canvas(asked)
    picture = read_picture(image, limits, keep_numbers=True)
    if mask is not None:
        return _masked(picture, masks.mask_of(read_picture(mask, limits, keep_numbers=True)), options, asked)
    if options.outpaint is not None:
        wider = masks.outpaint(picture.rgb, *options.outpaint)
        return _masked(replace(picture, rgb=wider.image), wider.mask, options, asked)
    return Canvas(_size_like(options, picture.rgb.size), picture.rgb, notes=_notes_of(picture), profile=picture.working)


def _masked(picture: Picture, mask: Image.Image, options: GenerationOptions, asked: Size) -> Canvas:
    rgb, notes = picture.rgb, _notes_of(picture)
    sharp = masks.prepare_mask(mask, rgb.size, options.mask_invert)
    if sharp.getbbox() is None:
        notes.add("the mask is empty: the whole picture was changed")
        return Canvas(rgb.size, rgb, notes=notes, profile=picture.working)
    blurred = masks.blur(sharp, options.mask_blur)
    if max(blurred.tobytes()) < HALF:
        notes.add("the blur of the mask leaves little of it; a smaller one changes more")
    if options.second_pass:
        notes.add("no second pass is made where a part of a picture is painted anew")
    size, work, box = rgb.size, None, (0, 0, *rgb.size)
    if options.inpaint_area == "masked":
        work = asked
        box = masks.crop_box(blurred if blurred.getbbox() else sharp, options.inpaint_padding, work[0] / work[1])
        size = box[2] - box[0], box[3] - box[1]
    elif options.width or options.height:
        notes.add("the picture keeps its size: width and height are for --inpaint-area masked")
    fills = options.inpaint_fill == "fill" and options.strength > 0
    begun = masks.fill_from_around(rgb, blurred) if fills else rgb
    finish = partial(masks.paste_back, rgb, mask=blurred, box=box)
    return Canvas(size, begun.crop(box), blurred.crop(box), finish, notes, picture.working, work, (rgb.size, box))


def _notes_of(picture: Picture) -> Notes:
    notes = Notes(picture.notes)
    if picture.alpha is not None:
        notes.add("the transparency of the input is not kept")
    return notes


def _size_like(options: GenerationOptions, size: Size) -> Size:
    """The size that is asked for; a side that is not given follows from the proportions of `size`."""
    width, height = options.width, options.height
    if width and height:
        return width, height
    if width or height:
        scale = width / size[0] if width else (height or 0) / size[1]
        return width or max(1, round(size[0] * scale)), height or max(1, round(size[1] * scale))
    return size
