"""Jobs: everything that a request for pictures is, whoever sends it, and what is said of it while it runs.

Bytes travel, paths never: a request names its pictures by the hash of their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from seesr.generation.controls import MAX_CONTROLS, ControlUnit
from seesr.generation.options import GenerationOptions
from seesr.images.encoded import EncodedImage, ImageSource

if TYPE_CHECKING:
    from seesr.generation.generator import Generator
    from seesr.generation.passes import Cancelled
    from seesr.generation.previews import Preview
    from seesr.generation.result import GenerationResult
    from seesr.stages import Progress

Task = Literal["text to image", "image to image", "inpainting"]
NEEDED: dict[Task, set[str]] = {"text to image": set(), "image to image": {"image"}, "inpainting": {"image", "mask"}}
"""The pictures that each task takes."""


def content_hash(content: bytes) -> str:
    """The name by which a request refers to a picture."""
    return hashlib.sha256(content).hexdigest()


class JobRequest(BaseModel):
    """One job: the task, its options, and its pictures by content hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=100)
    task: Task = "text to image"
    options: GenerationOptions
    checkpoint: str | None = None
    """Name or digest of a checkpoint; None is the worker's default."""
    vae: str | None = None
    """Name of a VAE in place of the checkpoint's own."""
    prediction: str | None = None
    """`epsilon` or `v_prediction`, in place of what the checkpoint states."""
    image: str | None = None
    mask: str | None = None
    controls: tuple[ControlUnit[str], ...] = Field(default=(), max_length=MAX_CONTROLS)

    @model_validator(mode="after")
    def _check_pictures(self) -> Self:
        given = {name for name in ("image", "mask") if getattr(self, name) is not None}
        if given != NEEDED[self.task]:
            raise ValueError(f"{self.task} takes {' and '.join(sorted(NEEDED[self.task])) or 'no picture'}")
        return self


class JobEvent(BaseModel):
    """What is said of a job."""

    model_config = ConfigDict(frozen=True)

    job: str
    sequence: int
    kind: Literal["started", "progress", "preview", "note", "picture", "done", "failed", "cancelled"]
    data: dict[str, Any] = {}


class Worker(Protocol):
    """Runs jobs, one at a time, where the models are."""

    def run(self, request: JobRequest, inputs: Mapping[str, bytes], emit: Callable[[JobEvent], None]) -> None:
        """Runs a job to its end; `inputs` holds its pictures by content hash."""
        ...

    def cancel(self, job_id: str) -> None:
        """Ends a job, within a call of a network."""
        ...

    def loaded(self) -> list[str]:
        """Names of the checkpoints that are loaded."""
        ...

    def close(self) -> None:
        """Ends the worker."""
        ...


def run_job(
    generator: Generator,
    request: JobRequest,
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


def control_units(request: JobRequest, inputs: Mapping[str, bytes]) -> list[ControlUnit[ImageSource]]:
    """The job's units of ControlNet with their pictures."""
    return [unit.with_image(EncodedImage(inputs[unit.image], "the control image")) for unit in request.controls]
