"""One job while it runs: what it makes, and what it tells."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from PIL import Image

from seesr.errors import CanceledError, OptionError
from seesr.images.encoded import EncodedImage
from seesr.images.sizes import scale_factor, scaled
from seesr.job_runner.loaded_models import LoadedModels
from seesr.jobs import MEDIA_TYPES, GenerationRequest, JobEvent, JobRequest, TagsRequest, UpscaleRequest, run_job
from seesr.notes import Notes
from seesr.options import Limits
from seesr.version import __version__

if TYPE_CHECKING:
    from seesr.engine import Engine
    from seesr.result import Result

PREVIEW_SECONDS = 0.5
"""At least so long after a preview comes the next one."""
PREVIEW_SIDE, PREVIEW_QUALITY = 256, 70
"""Pixels that a preview has at most, and the quality of its JPEG file."""


class _SkippedError(CanceledError):
    """The picture that is made is not wanted."""


class RunningJob:
    """One job while it runs."""

    def __init__(self, job: str, emit: Callable[[JobEvent], None], models: LoadedModels) -> None:
        self.job, self.models, self._emit = job, models, emit
        self.is_cancelled = self.is_skipped = False
        self.notes = Notes()
        self._engine: Engine | None = None
        self._sequence, self._index, self._pictures = 0, 0, 1
        self._began: float | None = None
        self._previewed = 0.0
        self._seconds, self._plan, self._peak, self._attempts = dict[str, float](), "", 0, 0

    def say(self, kind: str, content: bytes | None = None, **data: Any) -> None:
        """Sends an event."""
        self._sequence += 1
        values = {"job": self.job, "sequence": self._sequence, "kind": kind, "data": data, "content": content}
        self._emit(JobEvent.model_validate(values))

    def make(self, request: JobRequest, inputs: Mapping[str, bytes]) -> dict[str, Any]:
        """Does what is asked for; returns what the job's end tells of it."""
        self.check()
        match request:
            case TagsRequest():
                return self._tag(EncodedImage(inputs[request.image], "the image"))
            case UpscaleRequest(method="SeeSR"):
                self._upscale(request, EncodedImage(inputs[request.image], "the image"))
            case UpscaleRequest():
                self._resize(request, EncodedImage(inputs[request.image], "the image"))
            case GenerationRequest():
                self._generate(request, inputs)
        seconds = {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}
        return {"seconds": seconds, "plan": self._plan, "peak_memory": self._peak, "attempts": self._attempts}

    def _tag(self, image: EncodedImage) -> dict[str, Any]:
        with self._loading():
            upscaler = self.models.upscaler()
        tags = {tag.name: round(tag.confidence, 4) for tag in upscaler.tags(image)}
        self.say("tags", tags=tags)
        return {"tags": tags}

    def _upscale(self, request: UpscaleRequest, image: EncodedImage) -> None:
        with self._loading():
            upscaler = self.models.upscaler()
        self._engine = upscaler.engine
        buffer, saving = io.BytesIO(), request.saving
        try:
            if request.reading.frames == "all":
                frames = upscaler.upscale_frames(image, request.options, self._progress)
                is_pages = frames.sequence.kind == "pages" and frames.sequence.count > 1
                saving = saving.model_copy(update={"format": saving.format or ("tiff" if is_pages else "png")})
                result = frames.save(buffer, saving)
            else:
                result = upscaler.upscale(image, request.options, self._progress)
                saving = saving.model_copy(update={"format": saving.format or "png"})
                result.save(buffer, saving)
        except _SkippedError:
            self._note("the picture was skipped")
            return
        self._picture(result, buffer.getvalue(), saving.format or "png")

    def _resize(self, request: UpscaleRequest, image: EncodedImage) -> None:
        """Enlarges without networks."""
        from seesr.images.read import read_picture
        from seesr.images.save import save

        limits = Limits.from_environment()
        picture = read_picture(image, limits, keep_numbers=True)
        factor = scale_factor(picture.rgb.size, request.options.scale, request.options.max_side)
        size = scaled(picture.rgb.size, factor)
        if max(size) > limits.output_side:
            raise OptionError(
                f"the picture would be {size[0]}x{size[1]}; at most {limits.output_side} pixels a side are allowed."
            )
        filters = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
        resized = picture.rgb.resize(size, filters[request.method])
        if picture.alpha:
            resized.putalpha(picture.alpha.resize(size, filters[request.method]))
        if picture.working:
            resized.info["icc_profile"] = picture.working
        buffer, saving = io.BytesIO(), request.saving.model_copy(update={"format": request.saving.format or "png"})
        settings = {"version": __version__, "method": request.method, "scale": factor}
        for note in (*picture.notes, *save(resized, buffer, saving, metadata=picture.metadata)):
            self._note(note)
        about = {"index": 0, "seed": None, "width": size[0], "height": size[1], "settings": settings, "record": settings}
        self.say("picture", buffer.getvalue(), media_type=MEDIA_TYPES[saving.format or "png"], **about)

    def _generate(self, request: GenerationRequest, inputs: Mapping[str, bytes]) -> None:
        with self._loading():
            generator = self.models.generator(request)
        self._engine = generator.engine
        format = request.saving.format or "png"
        saving, options = request.saving.model_copy(update={"format": format}), _with_seeds(request.options)
        self._pictures = options.count
        while True:
            begun = self._index
            part = request.model_copy(update={"options": options})
            try:
                for result in run_job(generator, part, inputs, self._progress, self._must_end, self._preview):
                    buffer = io.BytesIO()
                    result.save(buffer, saving)
                    self._picture(result, buffer.getvalue(), format)
                return
            except CanceledError:
                if self.is_cancelled or not self.is_skipped:
                    raise
            self._note("a picture was skipped")
            self.is_skipped = False
            # The next batch begins with the seed that it would have had.
            batches = (self._index - begun) // options.batch_size + 1
            if batches >= options.batch_count:
                return
            options = _from_batch(options, batches)
            self._index = begun + batches * options.batch_size

    def _picture(self, result: Result[Any], content: bytes, format: str) -> None:
        for note in result.notes:
            self._note(note)
        for stage, seconds in result.seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        self._plan, self._peak = result.rung, max(self._peak, result.peak_memory)
        self._attempts += len(result.attempts)
        width, height = result.image.size
        about = {"index": self._index, "seed": result.seed, "width": width, "height": height}
        about |= {"media_type": MEDIA_TYPES[format], "settings": result.settings(), "record": result.record()}
        self.say("picture", content, **about)
        self._index += 1

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.add(text)
            self.say("note", text=text)

    def _must_end(self) -> bool:
        return self.is_cancelled or self.is_skipped

    def check(self) -> None:
        """Raises once the job, or its picture, is to end."""
        if self.is_cancelled:
            raise CanceledError("the job was cancelled.")
        if self.is_skipped:
            raise _SkippedError("the picture was skipped.")

    def _progress(self, stage: str, done: int, total: int) -> None:
        self.check()
        now = time.monotonic()
        if self._began is None:
            self._began = now
        share = done / total if stage in ("denoise", "frame") and total else 1.0 if stage in ("vae_decode", "done") else 0.0
        finished = min(1.0, (self._index + share) / self._pictures)
        eta = round((now - self._began) * (1 - finished) / finished, 1) if finished else None
        plan = self._engine.components.plan_name if self._engine else None
        numbers = {"step": done, "steps": total, "picture": self._index, "pictures": self._pictures}
        self.say("progress", stage=stage, **numbers, eta=eta, plan=plan)

    def _preview(self, pictures: list[Image.Image]) -> None:
        now = time.monotonic()
        if now - self._previewed < PREVIEW_SECONDS:
            return
        self._previewed, picture, buffer = now, pictures[0].convert("RGB"), io.BytesIO()
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        picture.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
        self.say("preview", buffer.getvalue(), picture=self._index, media_type="image/jpeg")

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """Tells that models are loaded, which may take long."""
        before = self.models.loaded()
        self.say("progress", stage="load", step=0, steps=1, picture=0, pictures=1, eta=None, plan=None)
        yield
        if self.models.loaded() != before:
            self.say("progress", stage="load", step=1, steps=1, picture=0, pictures=1, eta=None, plan=None)
        self.check()


def _with_seeds(options: Any) -> Any:
    """The options with seeds that are drawn where none are given, so that a part of the job can be made alone."""
    seeds = {"seed": options.seed} | ({"variation_seed": options.variation_seed} if options.variation_strength else {})
    drawn = {name: secrets.randbits(32) for name, seed in seeds.items() if seed in (None, -1)}
    return options.model_copy(update=drawn)


def _from_batch(options: Any, batches: int) -> Any:
    """The options for what comes after so many batches."""
    name = "variation_seed" if options.variation_strength else "seed"
    seed = (getattr(options, name) + batches * options.batch_size) % 2**32
    return options.model_copy(update={name: seed, "batch_count": options.batch_count - batches})
