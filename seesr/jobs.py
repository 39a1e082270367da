"""Jobs: everything that a request for pictures is, whoever sends it, and what is said of it while it runs.

Bytes travel, paths never: a request names its pictures by the hash of their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from seesr.generation.options import GenerationOptions

Task = Literal["text to image", "image to image", "inpainting"]


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
    image: str | None = None
    mask: str | None = None


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
