"""The models that are loaded: the upscaler and the generators, within a memory budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seesr.errors import OptionError, SeeSRError
from seesr.job_runner.settings import WorkerSettings
from seesr.jobs import GenerationRequest
from seesr.lru_cache import LRUCache

if TYPE_CHECKING:
    from seesr.engine import Engine
    from seesr.generation.checkpoints import Checkpoint
    from seesr.generation.generator import Generator
    from seesr.upscaler import Upscaler

WEIGHTS_SHARE = 0.5
"""Of the memory that may be used, which the weights of all loaded models may take; the rest is for computing."""
UPSCALER = "upscaler"
"""Key of the upscaler among the loaded models."""
WEIGHTS = "*.safetensors"
"""Files of weights in a folder."""
MAX_DIGESTS = 1000
"""Checkpoints whose digests are remembered."""


class LoadedModels:
    """The upscaler and the generators that are loaded; beyond the memory budget the one unused longest is let go of."""

    def __init__(self, settings: WorkerSettings, weight_bytes: int | None = None) -> None:
        self.settings, self.weight_bytes = settings, weight_bytes
        self._loaded = OrderedDict[object, Any]()
        """In the order of their last use. A generator on the upscaler's base has its engine."""
        self._in_use: set[Engine] = set()
        self._check: Callable[[], None] | None = None
        self._is_checked, self._hooks = False, ExitStack()
        self._digests = LRUCache[str | None](MAX_DIGESTS)

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
        checkpoint = self._resolve(request)
        key = checkpoint.root, _modified(checkpoint.root), checkpoint.vae, checkpoint.prediction_type
        return self._use(key, partial(self._load_generator, checkpoint))

    def loaded(self) -> list[str]:
        """Names of the checkpoints, and of the weights for upscaling."""
        return [model.weights.name if key == UPSCALER else model.checkpoint.name for key, model in self._loaded.items()]

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
        from seesr.generation.checkpoints import CHECKPOINTS, PICTOGRAMS
        from seesr.generation.library import model_folders, model_places
        from seesr.weights.manifest import beside_package

        if self._digest(beside_package(PICTOGRAMS)) == digest:
            return PICTOGRAMS
        places = (place for folder in model_folders(CHECKPOINTS) for place in model_places(folder))
        return next((place.path for place in places if self._digest(place.path) == digest), None)

    def _digest(self, path: Path) -> str | None:
        """Of a checkpoint, computed once for each time of change; None of one of another family, or that is damaged."""
        from seesr.generation.checkpoints import resolve_checkpoint

        def compute() -> str | None:
            try:
                return resolve_checkpoint(path).digest
            except SeeSRError:
                return None

        return self._digests.get((path, _modified(path, "*")), compute)

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
        for model in list(self._loaded.values()):
            engines = {model.engine for model in self._loaded.values()}
            held = sum(engine.components.nbytes(*engine.components.networks) for engine in engines)
            if held + wanted <= budget:
                return
            if model.engine in engines - self._in_use:
                self._unload(model.engine)

    def _unload(self, engine: Engine) -> None:
        for key, model in list(self._loaded.items()):
            if model.engine is engine:
                del self._loaded[key]
                if key != UPSCALER:
                    model.passes.embedder.clear()
        engine.components.unload()


def _file_bytes(path: Path) -> int:
    """Bytes of the weights in a file or folder."""
    return sum(file.stat().st_size for file in _files(path, WEIGHTS))


def _modified(path: Path, pattern: str = WEIGHTS) -> int:
    """When a file, or the newest of those in a folder, was written."""
    return max((file.stat().st_mtime_ns for file in _files(path, pattern)), default=0)


def _files(path: Path, pattern: str) -> list[Path]:
    """A file itself, or those in a folder."""
    return [file for file in path.rglob(pattern) if file.is_file()] if path.is_dir() else [path]
