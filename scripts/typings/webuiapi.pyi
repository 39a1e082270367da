# Its own types name a task of asyncio as the result of every method, which is so with use_async alone.
from enum import StrEnum
from typing import Any

from PIL import Image

class Upscaler(StrEnum):
    Lanczos = "Lanczos"

class HiResUpscaler(StrEnum):
    Lanczos = "Lanczos"

class WebUIApiResult:
    images: list[Image.Image]
    parameters: dict[str, Any]
    info: Any
    json: dict[str, Any]
    @property
    def image(self) -> Image.Image: ...

class ControlNetUnit:
    def __init__(self, **arguments: Any) -> None: ...

class WebUIApi:
    baseurl: str
    has_controlnet: bool
    def __init__(self, **arguments: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

def raw_b64_img(image: Image.Image) -> str: ...
