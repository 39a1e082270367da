"""The events of a job as OpenAI streams them (server-sent events: WHATWG HTML, section 9.2)."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.to_thread import run_sync
from PIL import Image

from seesr.jobs import ENDS, JobEvent
from seesr.studio.api.encoding import encode, to_base64
from seesr.studio.api.openai.fields import ImageRequest
from seesr.studio.error_bodies import openai_error
from seesr.studio.errors import JobFailedError
from seesr.studio.records import Job, PictureRecord, User
from seesr.studio.studio import Studio

PING_SECONDS = 15.0
"""After so long without an event a stream says that it lives."""
NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


@dataclass
class PictureStream:
    """The events of a job as OpenAI streams them; the job is cancelled when the client goes away."""

    studio: Studio
    user: User
    body: ImageRequest
    job: Job
    kind: str
    fraction: float = 0.0
    """Of the picture that is made, how much is done."""
    previews: dict[int, int] = field(default_factory=dict)
    """How many were sent, by picture."""

    async def run(self) -> AsyncIterator[bytes]:
        after, is_ended = 0, False
        try:
            while not is_ended:
                events = await run_sync(self.studio.events_async, self.user, self.job.id, after, PING_SECONDS)
                async with aclosing(events):
                    async for event in events:
                        after, is_ended = event.sequence, event.kind in ENDS
                        for part in await self._parts(event):
                            yield part
                if not is_ended:
                    yield b": waiting\n\n"
        finally:
            if not is_ended:
                with anyio.CancelScope(shield=True):
                    await run_sync(self.studio.cancel, self.user, self.job.id)

    async def _parts(self, event: JobEvent) -> Sequence[bytes]:
        data = event.data
        match event.kind:
            case "progress":
                self.fraction = (data.get("step") or 0) / (data.get("steps") or 1)
            case "preview" if event.content is not None and self._is_wanted(data["picture"]):
                index = self.previews.get(data["picture"], 0)
                self.previews[data["picture"]] = index + 1
                content = await run_sync(_encoded_as, event.content, self.body.suffix)
                return [self._part("partial_image", content, self.body.size or "auto", partial_image_index=index)]
            case "picture":
                picture, path = await run_sync(self.studio.picture_content, self.user, data["id"])
                content = await run_sync(path.read_bytes)
                return [self._part("completed", content, size_of(picture), usage=NO_USAGE)]
            case "failed" | "cancelled":
                error = openai_error(failure_of(event.kind, data.get("error")), JobFailedError.status)
                return [_sse("error", error)]
            case _:
                pass
        return []

    def _is_wanted(self, picture: int) -> bool:
        """Whether the next preview of a picture is due: they are spread over its steps."""
        wanted, sent = self.body.partial_images or 0, self.previews.get(picture, 0)
        return sent < wanted and self.fraction >= sent / (wanted + 1)

    def _part(self, name: str, content: bytes, size: str, **more: Any) -> bytes:
        values = {
            "type": f"{self.kind}.{name}",
            "b64_json": to_base64(content),
            "created_at": int(self.job.created.timestamp()),
            "size": size,
            "quality": "auto",
            "background": "opaque",
            "output_format": self.body.suffix,
        }
        return _sse(f"{self.kind}.{name}", values | more)


def _sse(name: str, values: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(values)}\n\n".encode()


def failure_of(state: str, error: str | None) -> str:
    """Why a job that ended in a state, with the sentence of an error, is not done."""
    return error or ("the job was cancelled." if state == "cancelled" else "the job was interrupted; send it again.")


def size_of(picture: PictureRecord) -> str:
    """As OpenAI writes it."""
    return f"{picture.width}x{picture.height}"


def _encoded_as(content: bytes, format: str) -> bytes:
    """A preview, which is one of ours, in the format that was asked for."""
    with Image.open(io.BytesIO(content)) as image:
        return encode(image.convert("RGB"), format)
