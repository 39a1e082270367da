"""Runs jobs of every task where the models are, and tells of each by events.

The libraries of the models are imported when the first job needs them: who only names `WorkerSettings` never loads PyTorch.
"""

from __future__ import annotations

import io
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image
from pydantic import BaseModel, ConfigDict, model_validator

from seesr.errors import CanceledError, OptionError, SeeSRError
from seesr.images.encoded import EncodedImage
from seesr.jobs import MEDIA_TYPES, GenerationRequest, JobEvent, JobRequest, TagsRequest, UpscaleRequest, run_job
from seesr.notes import Notes
from seesr.options import Limits
from seesr.version import __version__

if TYPE_CHECKING:
    from seesr.engine import Engine
    from seesr.generation.checkpoints import Checkpoint
    from seesr.generation.generator import Generator
    from seesr.result import Result
    from seesr.upscaler import Upscaler

logger = logging.getLogger("seesr")

PREVIEW_SECONDS = 0.5
"""At least so long after a preview comes the next one."""
PREVIEW_SIDE, PREVIEW_QUALITY = 256, 70
"""Pixels that a preview has at most, and the quality of its JPEG file."""
WEIGHTS_SHARE = 0.5
"""Of the memory that may be used, which the weights of all loaded models may take; the rest is for computing."""
UPSCALER = "upscaler"
"""Key of the upscaler among the loaded models."""
MEDIUM_VAE_TILE, SMALL_VAE_TILE = 48, 24
"""Latent pixels, for `medvram` and `lowvram`."""


class WorkerSettings(BaseModel):
    """How a worker runs jobs.

    Raises:
        OptionError: more than one of `lowvram`, `medvram` and `no_optimizations` is set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = None
    """For upscaling; None is as `Upscaler.load`."""
    checkpoint: str | None = None
    """Of jobs that name none; None is as `Generator.load`."""
    safety_checker: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    memory_limit: int | None = None
    """Bytes of the device's memory to use at most."""
    lowvram: bool = False
    """Keep only the running network on the device; small VAE tiles."""
    medvram: bool = False
    """Run the VAE in tiles."""
    no_optimizations: bool = False
    """Never run the VAE in tiles."""
    compiled: bool = False
    data: Path | None = None
    """The data folder, in which models, styles and wildcards are; None is as SEESR_DATA says."""
    seconds: float | None = None
    """Of a job, after which it is ended; None is no limit."""

    @model_validator(mode="after")
    def _one_of_the_flags(self) -> Self:
        if self.lowvram + self.medvram + self.no_optimizations > 1:
            raise OptionError("give one of --lowvram, --medvram and --no-optimizations.")
        return self

    @property
    def vae_tile(self) -> int | None:
        """Side of the VAE's tiles in latent pixels, 0 for none; None leaves it to the memory plan."""
        if self.lowvram or self.medvram:
            return SMALL_VAE_TILE if self.lowvram else MEDIUM_VAE_TILE
        return 0 if self.no_optimizations else None


class JobRunner:
    """Runs any `JobRequest`, one at a time, on models that stay loaded. Implements `Worker`.

    All jobs should come from one lasting thread (see `Upscaler`); `cancel` and `skip` come from any. A request names models
    of the user's folders, never a path.

    Args:
        weight_bytes: that the weights of all loaded models may take together; None is half of the memory that may be used.
    """

    def __init__(self, settings: WorkerSettings | None = None, weight_bytes: int | None = None) -> None:
        self.models = Models(settings or WorkerSettings(), weight_bytes)
        self._current: _Run | None = None

    def run(self, job: str, request: JobRequest, inputs: Mapping[str, bytes], emit: Callable[[JobEvent], None]) -> None:
        """See `Worker.run`.

        Events and their data: `started`; `progress` {stage, step, steps, picture, pictures, eta, plan}; `preview` {picture,
        media_type}; `note` {text}; `picture` {index, seed, width, height, media_type, settings, record}; `tags` {tags};
        `done` {result, notes}, `failed` {error, code} or `cancelled`.
        """
        from seesr.public_error import sanitize_errors

        run = self._current = _Run(job, emit, self.models)
        run.say("started")
        try:
            with sanitize_errors(), self.models.running(run.check):
                result = run.make(request, inputs)
        except CanceledError:
            run.say("cancelled")
        except Exception as error:
            # Public by now: what else there was to say went to the log.
            logger.debug("job %s failed", job, exc_info=True)
            code = type(error).__name__ if isinstance(error, SeeSRError) else "InternalError"
            run.say("failed", error=self.models.without_paths(str(error)), code=code)
        else:
            run.say("done", result=result, notes=list(run.notes))
        finally:
            self._current = None

    def cancel(self, job: str) -> None:
        run = self._current
        if run is not None and run.job == job:
            run.is_cancelled = True

    def skip(self, job: str) -> None:
        run = self._current
        if run is not None and run.job == job:
            run.is_skipped = True

    def loaded(self) -> list[str]:
        return self.models.loaded()

    def close(self) -> None:
        if run := self._current:
            run.is_cancelled = True
        self.models.unload()


class Models:
    """The upscaler and the generators that are loaded; beyond the memory budget the one unused longest is let go of."""

    def __init__(self, settings: WorkerSettings, weight_bytes: int | None = None) -> None:
        self.settings, self.weight_bytes = settings, weight_bytes
        self._loaded = OrderedDict[object, Any]()
        """In the order of their last use. A generator on the upscaler's base has its engine."""
        self._in_use: set[Engine] = set()
        self._check: Callable[[], None] | None = None
        self._is_checked, self._hooks = False, ExitStack()

    @contextmanager
    def running(self, check: Callable[[], None]) -> Iterator[None]:
        """A job runs: what it uses stays, and the upscaler's networks call `check` within their calls."""
        self._check, self._is_checked = check, False
        self._in_use.clear()
        try:
            with self._hooks:
                yield
        finally:
            self._check = None
            self._in_use.clear()

    def upscaler(self) -> Upscaler:
        """Loaded when it is needed for the first time."""
        return self._use(UPSCALER, self._load_upscaler)

    def generator(self, request: GenerationRequest) -> Generator:
        """That for a job's checkpoint, VAE and prediction.

        Raises:
            OptionError: one of them is unknown.
            WeightsError: files are missing or do not fit.
            OutOfMemoryError: the networks do not fit.
        """
        found = self._resolve(request)
        key = found.root, _modified(found.root), found.vae, found.prediction_type
        return self._use(key, partial(self._load_generator, found))

    def loaded(self) -> list[str]:
        """Names of the checkpoints, and of the weights for upscaling."""
        return [one.weights.name if key == UPSCALER else one.checkpoint.name for key, one in self._loaded.items()]

    def unload(self) -> None:
        """Lets go of all."""
        while self._loaded:
            self._unload(next(iter(self._loaded.values())).engine)

    def without_paths(self, message: str) -> str:
        """A message without the folders in which the operator keeps models."""
        from seesr.files import data_folder
        from seesr.weights.cache import Cache
        from seesr.weights.manifest import beside_package

        named = [Path(name).parent for name in (self.settings.weights, self.settings.checkpoint) if name]
        for folder in (data_folder(), Cache.default().root, beside_package("tiny").parent, *named):
            for path in (folder, folder.absolute(), folder.resolve()):
                if path.is_absolute() and path.parent != path:
                    message = message.replace(f"{path}/", "")
        return message

    @property
    def _on(self) -> tuple[Any, ...]:
        """The arguments for loading that tell where models run."""
        settings = self.settings
        return settings.device, settings.dtype, None, settings.memory_limit, settings.lowvram, settings.compiled

    def _resolve(self, request: GenerationRequest) -> Checkpoint:
        from seesr.generation.checkpoints import CHECKPOINTS, FULL, PICTOGRAMS, resolve_checkpoint
        from seesr.generation.library import find_known_model
        from seesr.generation.vaes import VAES

        checkpoint: str | Path | None = self.settings.checkpoint
        if request.checkpoint in (FULL, PICTOGRAMS):
            checkpoint = request.checkpoint
        elif request.checkpoint is not None:
            checkpoint = find_known_model(request.checkpoint, CHECKPOINTS) or self._by_digest(request.checkpoint)
            if checkpoint is None:
                raise OptionError(
                    f"unknown checkpoint {request.checkpoint!r}; take {PICTOGRAMS} or one of models/{CHECKPOINTS}."
                )
        vae = None if request.vae is None else find_known_model(request.vae, VAES)
        if request.vae is not None and vae is None:
            raise OptionError(f"unknown VAE {request.vae!r}; take one of models/{VAES}.")
        return resolve_checkpoint(checkpoint, vae, request.prediction)

    def _by_digest(self, digest: str) -> Path | str | None:
        """The embedded or one of the user's checkpoints that has this digest."""
        from seesr.files import data_folder
        from seesr.generation.checkpoints import CHECKPOINTS, PICTOGRAMS, resolve_checkpoint
        from seesr.generation.library import MODELS

        folder = data_folder() / MODELS / CHECKPOINTS
        for path in (PICTOGRAMS, *(sorted(folder.iterdir()) if folder.is_dir() else ())):
            try:
                if resolve_checkpoint(path).digest == digest:
                    return path
            except SeeSRError:  # of another family, or damaged
                continue
        return None

    def _use(self, key: object, load: Callable[[], Any]) -> Any:
        if key not in self._loaded:
            self._loaded[key] = load()
        self._loaded.move_to_end(key)
        engine = self._loaded[key].engine
        if key == UPSCALER and self._check and not self._is_checked:
            self._hooks.enter_context(engine.components.checked(engine.components.networks.values(), self._check))
            self._is_checked = True
        self._in_use.add(engine)
        return self._loaded[key]

    def _load_upscaler(self) -> Upscaler:
        from seesr.upscaler import Upscaler
        from seesr.weights.resolve import resolve_weights

        weights = resolve_weights(self.settings.weights)
        self._make_room(_file_bytes(weights.root))
        return Upscaler.load(self.settings.weights, *self._on)

    def _load_generator(self, checkpoint: Checkpoint) -> Generator:
        from seesr.engine import Engine
        from seesr.generation.generator import Generator
        from seesr.networks import network_costs
        from seesr.weights.resolve import resolve_weights

        is_own = checkpoint.vae is None and checkpoint.prediction_type is None
        if checkpoint.is_base and is_own and checkpoint.root.parent == resolve_weights(self.settings.weights).root:
            engine = self.upscaler().engine
        else:
            self._make_room(_file_bytes(checkpoint.root) + (_file_bytes(checkpoint.vae.path) if checkpoint.vae else 0))
            engine = Engine.load(checkpoint.name, checkpoint.networks, network_costs, checkpoint.defaults.dtype, *self._on)
        tile, checker = self.settings.vae_tile, self.settings.safety_checker
        return Generator(engine, checkpoint, vae_tile=tile, safety_checker=checker, load_upscaler=self.upscaler)

    def _make_room(self, wanted: int) -> None:
        """Lets go of models that do not run until `wanted` bytes of weights fit beside those that stay."""
        from seesr.machine.device import choose_device
        from seesr.machine.memory import memory_bytes

        memory = self.settings.memory_limit or memory_bytes(choose_device(self.settings.device))[1]
        budget = WEIGHTS_SHARE * memory if self.weight_bytes is None else self.weight_bytes
        for one in list(self._loaded.values()):
            engines = {one.engine for one in self._loaded.values()}
            held = sum(engine.components.nbytes(*engine.components.networks) for engine in engines)
            if held + wanted <= budget:
                return
            if one.engine in engines - self._in_use:
                self._unload(one.engine)

    def _unload(self, engine: Engine) -> None:
        for key, one in list(self._loaded.items()):
            if one.engine is engine:
                del self._loaded[key]
                if key != UPSCALER:
                    one.passes.embedder.clear()
        engine.components.unload()


class _SkippedError(CanceledError):
    """The picture that is made is not wanted."""


class _Run:
    """One job while it runs."""

    def __init__(self, job: str, emit: Callable[[JobEvent], None], models: Models) -> None:
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
        options, (width, height) = request.options, picture.rgb.size
        factor = options.max_side / max(width, height) if options.max_side else options.scale
        size = max(1, round(width * factor)), max(1, round(height * factor))
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


def _file_bytes(path: Path) -> int:
    """Bytes of the weights in a file or folder."""
    files = path.rglob("*.safetensors") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _modified(path: Path) -> int:
    """When a file, or the newest of the weights in a folder, was written."""
    files = list(path.rglob("*.safetensors")) if path.is_dir() else [path]
    return max((file.stat().st_mtime_ns for file in files), default=0)
