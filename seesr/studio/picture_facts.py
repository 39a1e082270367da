"""What a picture's file says of how it was made: its program, settings, and texts ("PNG info")."""

from __future__ import annotations

from typing import Any

from PIL import ExifTags, Image
from pydantic import BaseModel, Field

from seesr.generation.infotext import Infotext
from seesr.images.encoded import EncodedImage, check_file_size, load_image
from seesr.images.metadata import read_infotext, read_settings, read_xmp_texts
from seesr.jobs import Task
from seesr.options import Limits

MAX_TEXTS, MAX_TEXT = 60, 4000
"""Texts that are told, and characters of each: a stranger wrote them."""
OWN_TEXTS = ("seesr", "parameters", "XML:com.adobe.xmp", "exif", "Raw profile type exif")
"""PNG texts that are told by other fields."""
PROGRAMS = {
    "workflow": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}
"""Programs by a PNG text that only they write."""
EXIF_TAGS = (
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)


class PictureFacts(BaseModel):
    """What a picture's file says of itself."""

    width: int
    height: int
    format: str = Field(description="Such as PNG.")
    size: int = Field(description="Bytes.")
    made_by: str | None = Field(description="The program that wrote it, as far as it can be told.")
    task: Task | None = Field(description="What made it; null where it holds no settings.")
    settings: dict[str, Any] | None = Field(description="Of SeeSR.")
    infotext: str | None = Field(description="Of A1111 and compatible programs.")
    texts: dict[str, str] = Field(description="Its other texts, of PNG, EXIF and XMP.")


def picture_facts(content: bytes, limits: Limits) -> PictureFacts:
    """What a file says of its picture.

    Raises:
        InputError: it is no picture, is damaged, or exceeds a limit.
    """
    check_file_size(len(content), limits, "the picture")
    image = load_image(EncodedImage(content, "the picture"), limits)
    settings, infotext, texts = read_settings(image), read_infotext(image), _texts(image)
    return PictureFacts(
        width=image.width,
        height=image.height,
        format=image.format or "",
        size=len(content),
        made_by=_program(settings, infotext, texts),
        task=task_of(settings, infotext),
        settings=settings,
        infotext=infotext,
        texts={name: text[:MAX_TEXT] for name, text in list(texts.items())[:MAX_TEXTS]},
    )


def task_of(settings: dict[str, Any] | None, infotext: str | None) -> Task | None:
    """The task that made a picture; an infotext tells it by what only that task has."""
    if settings is not None:
        tasks: dict[Any, Task] = {name: name for name in ("text to image", "image to image", "inpainting")}
        named = settings.get("task")
        return "upscale" if named is None else tasks.get(named) if isinstance(named, str) else None
    if infotext is None:
        return None
    keys = Infotext.parse(infotext).parameters.keys()
    if keys & {"Mask blur", "Masked content"}:
        return "inpainting"
    return "image to image" if "Denoising strength" in keys and "Hires upscale" not in keys else "text to image"


def _texts(image: Image.Image) -> dict[str, str]:
    info = {str(key): value for key, value in image.info.items() if isinstance(value, str) and key not in OWN_TEXTS}
    exif = image.getexif()
    values = {tag.name: str(exif[tag]).strip("\0 ") for tag in EXIF_TAGS if tag in exif}
    return info | {name: value for name, value in values.items() if value} | read_xmp_texts(image)


def _program(settings: dict[str, Any] | None, infotext: str | None, texts: dict[str, str]) -> str | None:
    if settings is not None:
        return f"SeeSR {settings.get('version', '')}".strip()
    if infotext is not None:
        version = Infotext.parse(infotext).parameters.get("Version", "")
        if version[:1] == "f" and version[1:2].isdigit():
            return f"Forge {version}"
        if version[:1] == "v" and version[1:2].isdigit():
            return f"AUTOMATIC1111 web UI {version}"
        return version or "the AUTOMATIC1111 web UI or a compatible program"
    if named := next((program for text, program in PROGRAMS.items() if text in texts), None):
        return named
    return next((texts[name] for name in ("Software", "xmp:CreatorTool") if name in texts), None)
