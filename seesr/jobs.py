"""Jobs: everything that a request for pictures is, whoever sends it, and what is said of it while it runs.

Bytes travel, paths never: a request names its pictures by the hash of their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from seesr.errors import OptionError
from seesr.generation.controls import MAX_CONTROLS, ControlUnit
from seesr.generation.options import GenerationOptions
from seesr.images.encoded import EncodedImage, ImageSource
from seesr.options import Options, ReadOptions, SaveOptions, validation_message

if TYPE_CHECKING:
    from seesr.generation.generator import Generator
    from seesr.generation.passes import Cancelled
    from seesr.generation.previews import Preview
    from seesr.generation.result import GenerationResult
    from seesr.stages import Progress

GenerationTask = Literal["text to image", "image to image", "inpainting"]
NEEDED: dict[GenerationTask, set[str]] = {
    "text to image": set(),
    "image to image": {"image"},
    "inpainting": {"image", "mask"},
}
"""The pictures that each task takes."""
ContentHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a picture's file."""
MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
    "avif": "image/avif",
    "jxl": "image/jxl",
}
"""Media types by the formats of `SaveOptions`."""


def content_hash(content: bytes) -> str:
    """The name by which a request refers to a picture."""
    return hashlib.sha256(content).hexdigest()


class GenerationRequest(BaseModel):
    """Pictures that are made: from noise, from a picture, or in a part of one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: GenerationTask = "text to image"
    options: GenerationOptions
    saving: SaveOptions = SaveOptions()
    checkpoint: str | None = None
    """Name or digest of a checkpoint; None is the worker's default."""
    vae: str | None = None
    """Name of a VAE in place of the checkpoint's own."""
    prediction: str | None = None
    """`epsilon` or `v_prediction`, in place of what the checkpoint states."""
    image: ContentHash | None = None
    mask: ContentHash | None = None
    controls: tuple[ControlUnit[ContentHash], ...] = Field(default=(), max_length=MAX_CONTROLS)

    @property
    def pictures(self) -> set[str]:
        """Hashes of the pictures that it takes."""
        return {name for name in (self.image, self.mask, *(unit.image for unit in self.controls)) if name is not None}

    @model_validator(mode="after")
    def _check_pictures(self) -> Self:
        given = {name for name in ("image", "mask") if getattr(self, name) is not None}
        if given != NEEDED[self.task]:
            raise ValueError(f"{self.task} takes {' and '.join(sorted(NEEDED[self.task])) or 'no picture'}")
        return self


UpscaleMethod = Literal["SeeSR", "Lanczos", "Nearest"]
UPSCALE_METHODS: tuple[UpscaleMethod, ...] = get_args(UpscaleMethod)


class UpscaleRequest(BaseModel):
    """A picture that is made larger and sharper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["upscale"]
    method: UpscaleMethod = "SeeSR"
    """Lanczos and Nearest only resize; of the options they take the size alone."""
    options: Options = Options()
    reading: ReadOptions = ReadOptions()
    saving: SaveOptions = SaveOptions()
    image: ContentHash

    @property
    def pictures(self) -> set[str]:
        """Hashes of the pictures that it takes."""
        return {self.image}


class TagsRequest(BaseModel):
    """What RAM finds in a picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["tags"]
    image: ContentHash

    @property
    def pictures(self) -> set[str]:
        """Hashes of the pictures that it takes."""
        return {self.image}


JobRequest = Annotated[GenerationRequest | UpscaleRequest | TagsRequest, Field(discriminator="task")]
"""A job of any task: a full snapshot of its settings."""
Task = Literal[GenerationTask, "upscale", "tags"]
_REQUESTS: TypeAdapter[GenerationRequest | UpscaleRequest | TagsRequest] = TypeAdapter(JobRequest)


def parse_request(values: Mapping[str, Any] | str | bytes) -> JobRequest:
    """A request from JSON, or from the values of one.

    Raises:
        OptionError: a value is not valid; the message names it.
    """
    try:
        return _REQUESTS.validate_json(values) if isinstance(values, str | bytes) else _REQUESTS.validate_python(values)
    except ValidationError as error:
        raise OptionError(validation_message(error)) from None


EventKind = Literal["started", "progress", "preview", "note", "picture", "tags", "done", "failed", "cancelled"]
"""What an event tells."""
ENDS: tuple[EventKind, ...] = ("done", "failed", "cancelled")
"""Kinds of the last event of a job."""


class JobEvent(BaseModel):
    """What is said of a job."""

    model_config = ConfigDict(frozen=True)

    job: str
    sequence: int
    """Counts the events of a job from 1."""
    kind: EventKind
    data: dict[str, Any] = {}
    content: bytes | None = Field(default=None, exclude=True, repr=False)
    """Of a preview and a picture: the file."""


class Worker(Protocol):
    """Runs jobs, one at a time, where the models are."""

    def run(self, job: str, request: JobRequest, inputs: Mapping[str, bytes], emit: Callable[[JobEvent], None]) -> None:
        """Runs a job to its end, of which the last event tells; `inputs` holds its pictures by content hash."""
        ...

    def cancel(self, job: str) -> None:
        """Ends a job, within a call of a network; of a job that does not run here, nothing is done."""
        ...

    def skip(self, job: str) -> None:
        """Ends the picture that is made at this moment; the job's next one is begun."""
        ...

    def loaded(self) -> list[str]:
        """Names of the checkpoints that are loaded."""
        ...

    def close(self) -> None:
        """Ends the worker."""
        ...


def run_job(
    generator: Generator,
    request: GenerationRequest,
    inputs: Mapping[str, bytes],
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
    preview: Preview | None = None,
) -> Iterator[GenerationResult]:
    """The pictures of a job, each as soon as it is finished; `inputs` holds its pictures by content hash.

    Raises:
        SeeSRError: as `Generator.stream`.
    """
    image = None if request.image is None else EncodedImage(inputs[request.image], "the image")
    mask = None if request.mask is None else EncodedImage(inputs[request.mask], "the mask")
    return generator.stream(request.options, image, mask, progress, cancelled, preview, control_units(request, inputs))


def control_units(request: GenerationRequest, inputs: Mapping[str, bytes]) -> list[ControlUnit[ImageSource]]:
    """The job's units of ControlNet with their pictures."""
    return [unit.with_image(EncodedImage(inputs[unit.image], "the control image")) for unit in request.controls]
