"""Keeps the user's models: lists, fetches, adds, removes and verifies them, without PyTorch.

Names are looked up among what is there and never joined to paths; new names are checked (`new_name`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from seesr.addresses import AddressRules
from seesr.errors import OptionError, WeightsError
from seesr.files import data_folder, user_name
from seesr.generation.library import ADAPTER_FILE, MODELS, ModelPlace, model_folders, model_places, models_from
from seesr.generation.model_file import ModelFile
from seesr.models.catalogue import CatalogueEntry, ModelSource, read_catalogue
from seesr.models.contents import LEGACY_SUFFIXES, NAMES, Contents, Kind, inspect, require_model
from seesr.models.plans import Plan, make_plan
from seesr.weights.cache import Cache, FileState, file_state, sha256
from seesr.weights.fetch import fetch, require_room
from seesr.weights.hub import ACCEPT_VARIABLE, hub_endpoint, is_accepted
from seesr.weights.records import Record, Records

KINDS: tuple[Kind, ...] = get_args(Kind)
PARTIAL, FETCHED = ".partial", "model"
"""In `models/`: what is being fetched, each model under the second name in a folder of its own."""
MAX_NAME = 100
SHOWN = 20
State = Literal[FileState, "not recorded"]
OnBytes = Callable[[int, int], None]


class ModelInfo(BaseModel):
    """A model of the user's."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    """Of its folder."""
    name: str
    size: int
    """Bytes."""
    base: str | None = None
    """Its family, or that of the checkpoints that it is for: `SD 1`, `SD 2`, `SDXL`."""
    problem: str | None = None
    """Why it cannot be used, in a few words."""
    trigger_words: tuple[str, ...] = ()
    """What to write in a prompt, of a LoRA."""
    has_preview: bool = False
    """Whether a picture stands beside its file."""
    is_folder: bool = False
    is_own: bool = True
    """Not in a folder of another program, whose models are never changed."""
    sha256: str | None = None
    """Of a model of one file, where it was computed."""
    source: str | None = None
    """Where it was fetched from."""
    licence: str | None = None
    licence_page: str | None = None


class Verified(BaseModel):
    """A file of a model, and whether it is as it was when it was fetched or added."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    name: str
    file: str
    state: State


@dataclass(frozen=True)
class _Entry:
    kind: Kind
    place: ModelPlace
    is_own: bool

    @property
    def files(self) -> list[Path]:
        """All files, of a folder those that are not hidden."""
        if not self.place.path.is_dir():
            return [self.place.path]
        found = (Path(root) / name for root, _, names in os.walk(self.place.path) for name in names)
        return sorted(path for path in found if not path.name.startswith("."))

    @property
    def preview(self) -> Path | None:
        """The picture beside its file."""
        return None if self.place.path.is_dir() else ModelFile(self.place.name, self.place.path).preview


class ModelManager:
    """The models of a data folder, and those of other programs. Thread-safe; several processes may share a folder.

    Args:
        data: holds `models/`; None is the user's (`data_folder`).
        others: folders of AUTOMATIC1111's web UI or ComfyUI; None are those of `SEESR_MODELS_FROM`.
        rules: which addresses are fetched from; the hub's own, or its mirror's, is always allowed.
        pause: seconds before a transfer that broke off goes on.
    """

    def __init__(
        self,
        data: Path | None = None,
        others: Sequence[Path] | None = None,
        rules: AddressRules | None = None,
        pause: float = 1.0,
    ) -> None:
        self.models = (data or data_folder()) / MODELS
        self.others = models_from() if others is None else tuple(others)
        self.rules, self.pause = rules, pause
        self.records, self.index = Records(self.models / "records.json"), Records(self.models / ".index.json")

    # What is there.

    def list_models(self, kind: Kind | None = None) -> list[ModelInfo]:
        """All models, or those of a kind, in the order of their names. Headers that did not change are not read again."""
        entries = [entry for each in KINDS if kind in (None, each) for entry in self._entries(each)]
        records, index = self.records.read(), self.index.read()
        facts = {entry: self._facts(entry, index) for entry in entries}
        paths = {str(entry.place.path): fact for entry, fact in facts.items()}
        changes: dict[str, Record | None] = {path: fact for path, fact in paths.items() if index.get(path) != fact}
        if kind is None:
            changes |= dict.fromkeys(index.keys() - paths.keys())
        self._keep(changes)
        infos = [_info(entry, fact, records.get(_key(entry), {})) for entry, fact in facts.items()]
        return sorted(infos, key=lambda info: (KINDS.index(info.kind), info.name.lower()))

    def info(self, kind: Kind, name: str) -> ModelInfo:
        """A model.

        Raises:
            OptionError: there is none of this name.
        """
        entry = self._find(kind, name)
        return _info(entry, self._facts(entry, self.index.read()), self.records.read().get(_key(entry), {}))

    def preview(self, kind: Kind, name: str) -> bytes:
        """The picture that stands beside a model's file.

        Raises:
            OptionError: there is no model of this name, or no picture beside it.
            WeightsError: it cannot be read.
        """
        entry = self._find(kind, name)
        path = entry.preview
        if path is None:
            raise OptionError(f"no picture stands beside {name}; put {name}.png there.")
        try:
            return path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error

    def digest(self, kind: Kind, name: str) -> str:
        """SHA-256 of a model of one file, which is computed once for each path, size and time of change.

        Raises:
            OptionError: there is none of this name, or it is a folder.
            WeightsError: it cannot be read.
        """
        entry = self._find(kind, name)
        if entry.place.path.is_dir():
            raise OptionError(f"{name} is a folder, which has no digest of its own.")
        facts = self._facts(entry, self.index.read())
        if facts.get("sha256") is None:
            facts["sha256"] = _sha256(entry.place.path)
            self._keep({str(entry.place.path): facts})
        return facts["sha256"]

    @staticmethod
    def catalogue() -> list[CatalogueEntry]:
        """Well-known models that `pull` fetches by their names."""
        return read_catalogue()

    # Getting more.

    @staticmethod
    def plan(source: ModelSource) -> Plan:
        """What `pull` would fetch, for the licence and the size to be shown before."""
        return make_plan(source)

    def require_accepted(self, plan: Plan, accepted: bool, by: str) -> None:
        """Checks that the licence of a model was accepted, now or before, and records it.

        Raises:
            WeightsError: it was not.
        """
        if not plan.must_accept:
            return
        licences, licence, page = Cache.default().licences, plan.licence or "its own licence", plan.licence_page or ""
        if accepted or is_accepted():
            licences.accept(licence, page, by)
        elif not licences.is_accepted(licence, page):
            raise WeightsError(
                f"{plan.name} is under the licence {licence}; read it at {page}, then accept it with --accept-license or "
                f"{ACCEPT_VARIABLE}=1."
            )

    def pull(
        self,
        plan: Plan,
        kind: Kind | None = None,
        name: str | None = None,
        accepted: bool = False,
        by: str | None = None,
        on_bytes: OnBytes | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ModelInfo:
        """Fetches a model; what was fetched before it broke off or was cancelled is not fetched again.

        Args:
            kind: what it must be; None takes what the catalogue or its content says.
            name: in place of the source's.
            accepted: its licence is accepted.
            by: who accepts it; None is the user who runs the program.
            on_bytes: called with the bytes that are there and those of all files.

        Raises:
            AddressError: an address is refused.
            CanceledError: `cancelled` said so.
            OptionError: the name cannot be one.
            WeightsError: the licence is not accepted, there is no room, a model of the name is there, or what comes is not
                what was promised.
        """
        name, kind = new_name(name or plan.name), kind or plan.kind
        try:
            self.require_accepted(plan, accepted, by or user_name())
            if kind is not None:
                self._require_free(kind, name)
            key = hashlib.sha256(repr((plan.source, plan.revision, sorted(plan.files))).encode()).hexdigest()[:16]
            folder = self.models / PARTIAL / key
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f"{key}.lock"):
                digests = self._fetch(plan, folder, on_bytes or (lambda done, total: None), cancelled)
                path = folder / FETCHED
                try:
                    kind = self._kind_of(path, kind, name)
                except WeightsError:
                    shutil.rmtree(folder)
                    raise
                record: Record = {"source": plan.source, "revision": plan.revision}
                record |= {"licence": plan.licence, "licence_page": plan.licence_page, "files": digests}
                self._move_in(path, kind, name, record)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise WeightsError(f"{self.models} cannot be written: {error.strerror or error}.") from error
        return self.info(kind, name)

    def add(self, path: Path, kind: Kind | None = None, name: str | None = None) -> ModelInfo:
        """Copies a file or a folder of diffusers to the models; its content says of which kind it is.

        Raises:
            OptionError: the name cannot be one, or there is no such file.
            WeightsError: it is no model that can be used, is of another kind than `kind`, or one of the name is there.
        """
        if not path.exists():
            raise OptionError(f"{path} is not there.")
        name = new_name(name or (path.name if path.is_dir() else path.stem))
        kind = self._kind_of(path, kind, path.name)
        self._require_free(kind, name)
        try:
            staged = self.models / PARTIAL / f"add-{os.getpid()}-{name}"
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            try:
                source = _Entry(kind, ModelPlace(name, path), False)
                require_room(staged, sum(file.stat().st_size for file in source.files))
                copy = staged / FETCHED
                if path.is_dir():
                    # What links point to is copied; hidden files are not.
                    shutil.copytree(path, copy, ignore=shutil.ignore_patterns(".*"))
                else:
                    shutil.copyfile(path, copy)
                self._kind_of(copy, kind, name)  # once more, as it may have been changed meanwhile
                self._move_in(copy, kind, name, {"source": "added", "files": _digests(copy)})
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        except OSError as error:
            raise WeightsError(f"{self.models} cannot be written: {error.strerror or error}.") from error
        return self.info(kind, name)

    # Keeping them whole.

    def remove(self, kind: Kind, name: str) -> None:
        """Removes a model, and what stands beside its file: its notes and previews.

        Raises:
            OptionError: there is none of this name, or it is another program's.
            WeightsError: it cannot be removed.
        """
        entry = self._find(kind, name)
        if not entry.is_own:
            raise OptionError(f"{name} is in {entry.place.path.parent}, of another program; remove it there.")
        path = entry.place.path
        try:
            # As `_move_in`: the record of one that is fetched anew under the name stays.
            with FileLock(self.models / ".lock"):
                if path.name == ADAPTER_FILE:
                    path = path.parent
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                    for beside in ModelFile(name, path).beside():
                        beside.unlink(missing_ok=True)
                self.records.update({_key(entry): None})
        except OSError as error:
            raise WeightsError(f"{name} cannot be removed: {error.strerror or error}.") from error

    def verify(self, kind: Kind | None = None, name: str | None = None) -> Iterator[Verified]:
        """Each file of each own model, or of one, by the SHA-256 that was recorded when it was fetched or added.

        Raises:
            OptionError: there is none of this name.
        """
        if kind is not None and name is not None:
            entries = [self._find(kind, name)]
        else:
            entries = [entry for each in KINDS if kind in (None, each) for entry in self._entries(each) if entry.is_own]
        records = self.records.read()
        for entry in entries:
            files = records.get(_key(entry), {}).get("files") or {}
            if not files:
                yield Verified(kind=entry.kind, name=entry.place.name, file=entry.place.path.name, state="not recorded")
            for file, digest in sorted(files.items()):
                path = entry.place.path / file if file else entry.place.path
                yield Verified(
                    kind=entry.kind, name=entry.place.name, file=file or path.name, state=file_state(path, digest)
                )
        recorded = {key: record for key, record in records.items() if kind is None and name is None}
        for key in sorted(recorded.keys() - {_key(entry) for entry in entries}):
            each, _, gone = key.partition("/")
            if each in KINDS:
                yield Verified(kind=each, name=gone, file=gone, state="missing")

    def _entries(self, kind: Kind) -> list[_Entry]:
        found = dict[str, _Entry]()
        for number, folder in enumerate(model_folders(kind, self.models, self.others)):
            for place in model_places(folder, (".safetensors", *LEGACY_SUFFIXES)):
                found.setdefault(place.name, _Entry(kind, place, is_own=number == 0))
        return list(found.values())

    def _find(self, kind: Kind, name: str) -> _Entry:
        entries = self._entries(kind)
        found = [entry for entry in entries if entry.place.name == name] or [
            entry for entry in entries if entry.place.name.rpartition("/")[2] == name
        ]
        if len(found) == 1:
            return found[0]
        names = [entry.place.name for entry in found or entries]
        listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") or "none"
        what = "several are called" if found else "unknown"
        raise OptionError(f"{NAMES[kind]}: {what} {name[:MAX_NAME]!r}; models/{kind} has: {listed}.")

    def _facts(self, entry: _Entry, index: dict[str, Record]) -> Record:
        """Size, time and contents of a model, from the index where it did not change."""
        size = time = 0
        for path in entry.files:
            try:
                stat = path.stat()
            except OSError:  # removed meanwhile, or a link that leads nowhere
                continue
            size, time = size + stat.st_size, max(time, stat.st_mtime_ns)
        known = index.get(str(entry.place.path), {})
        if (known.get("size"), known.get("time")) == (size, time) and known.keys() >= {"kind", "base", "problem"}:
            return known
        contents = _contents(entry)
        words = _trigger_words(entry) if entry.kind == "loras" and contents.kind == "loras" else []
        facts = {"size": size, "time": time, "kind": contents.kind, "base": contents.base, "problem": contents.problem}
        return facts | {"words": words}

    def _keep(self, changes: dict[str, Record | None]) -> None:
        """Writes the index; where that is not possible, headers are read again the next time."""
        if changes and self.models.is_dir():
            try:
                self.index.update(changes)
            except OSError:
                return

    @staticmethod
    def _kind_of(path: Path, kind: Kind | None, shown: str) -> Kind:
        """What a file or folder is, which must be `kind` if that is given; raises as `require_model`."""
        contents = require_model(path, kind, shown)
        assert contents.kind is not None
        return contents.kind

    def _require_free(self, kind: Kind, name: str) -> None:
        if any(entry.place.name.lower() == name.lower() for entry in self._entries(kind)):
            raise WeightsError(f"models/{kind} has {name} already; remove it before, or give another name with --name.")

    def _fetch(self, plan: Plan, folder: Path, on_bytes: OnBytes, cancelled: Callable[[], bool] | None) -> dict[str, str]:
        """Fetches what is missing, one file after the other; returns the SHA-256 of each."""
        there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        require_room(folder, plan.size - there)
        endpoint = hub_endpoint()
        rules = self.rules or AddressRules()
        rules = AddressRules(rules.allow_private, endpoint, rules.resolve)
        digests, before = dict[str, str](), 0
        for path, file in plan.files.items():
            target = folder / FETCHED / path if plan.is_folder else folder / FETCHED
            target.parent.mkdir(parents=True, exist_ok=True)

            def tell(done: int, total: int, before: int = before, is_known: bool = file.size is not None) -> None:
                on_bytes(before + done, plan.size if is_known else before + total)

            if not target.is_file():
                fetch(file, target, rules, tell, cancelled, self.pause)
            before += target.stat().st_size
            on_bytes(before, plan.size or before)
            digests[path if plan.is_folder else ""] = file.digest if len(file.digest) == 64 else sha256(target)
        return digests

    def _move_in(self, path: Path, kind: Kind, name: str, record: Record) -> None:
        """Moves a model, whole and checked, to its place, and records it."""
        target = self.models / kind / (name if path.is_dir() else f"{name}.safetensors")
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.models / ".lock"):
            self._require_free(kind, name)
            os.rename(path, target)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.records.update({f"{kind}/{name}": record | {"added": now}})


def new_name(name: str) -> str:
    """A name for a new model: that of a file or folder, which is not hidden.

    Raises:
        OptionError: it cannot be one.
    """
    is_plain = name.isprintable() and not name.startswith((".", "-", " ")) and not set(name) & set('/\\:*?"<>|')
    if not 0 < len(name) <= MAX_NAME or not is_plain:
        raise OptionError(
            f"the name {name[:MAX_NAME]!r} cannot be one of a model; give one of 1 to {MAX_NAME} letters, digits, spaces "
            "and . _ - ( ) with --name."
        )
    return name


def _contents(entry: _Entry) -> Contents:
    path = entry.place.path
    if path.suffix.lower() in LEGACY_SUFFIXES:
        return Contents(None, problem="it is no safetensors file, and is never read: it may run code")
    contents = inspect(path)
    if contents.kind not in (None, entry.kind):
        found = NAMES[contents.kind]
        return Contents(contents.kind, contents.base, f"it is a {found}; move it to models/{contents.kind}")
    return contents


def _trigger_words(entry: _Entry) -> Sequence[str]:
    return list(ModelFile(entry.place.name, entry.place.path).trigger_words)


def _info(entry: _Entry, facts: Record, record: Record) -> ModelInfo:
    return ModelInfo(
        kind=entry.kind,
        name=entry.place.name,
        size=facts["size"],
        base=facts["base"],
        problem=facts["problem"],
        trigger_words=tuple(facts.get("words", ())),
        has_preview=entry.preview is not None,
        is_folder=entry.place.path.is_dir(),
        is_own=entry.is_own,
        sha256=facts.get("sha256"),
        source=record.get("source") if entry.is_own else None,
        licence=record.get("licence") if entry.is_own else None,
        licence_page=record.get("licence_page") if entry.is_own else None,
    )


def _key(entry: _Entry) -> str:
    return f"{entry.kind}/{entry.place.name}"


def _digests(path: Path) -> dict[str, str]:
    if not path.is_dir():
        return {"": sha256(path)}
    files: Iterable[Path] = _Entry("checkpoints", ModelPlace("", path), False).files
    return {file.relative_to(path).as_posix(): sha256(file) for file in files}


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
