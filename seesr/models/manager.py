"""Fetches, adds, removes and verifies the user's models, without PyTorch; what is there is in `listing.py`.

New names are checked (`new_name`); others are looked up among what is there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from seesr.addresses import AddressRules
from seesr.errors import OptionError, WeightsError
from seesr.files import user_name
from seesr.generation.library import ADAPTER_FILE
from seesr.generation.model_file import ModelFile
from seesr.models.catalogue import CatalogueEntry, ModelSource, read_catalogue
from seesr.models.contents import KINDS, Kind, require_model
from seesr.models.listing import MAX_NAME, ModelInfo, ModelListing, model_files
from seesr.models.plans import Plan, make_plan
from seesr.weights.cache import Cache, FileState, file_state, sha256
from seesr.weights.fetch import OnBytes, fetch, require_room
from seesr.weights.hub import ACCEPT_VARIABLE, hub_endpoint, is_accepted
from seesr.weights.records import Record

PARTIAL, FETCHED = ".partial", "model"
"""In `models/`: what is being fetched, each model under the second name in a folder of its own."""
State = Literal[FileState, "not recorded"]


class Verified(BaseModel):
    """A file of a model, and whether it is as it was when it was fetched or added."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    name: str
    file: str
    state: State


class ModelManager(ModelListing):
    """Lists models, and changes those of the data folder; of other programs none is ever changed.

    Args:
        data, others: as of `ModelListing`.
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
        super().__init__(data, others)
        self.rules, self.pause = rules, pause

    @staticmethod
    def catalogue() -> list[CatalogueEntry]:
        """Well-known models that `pull` fetches by their names."""
        return read_catalogue()

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
                    kind = require_model(path, kind, name)
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
        kind = require_model(path, kind, path.name)
        self._require_free(kind, name)
        try:
            staged = self.models / PARTIAL / f"add-{os.getpid()}-{name}"
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            try:
                require_room(staged, sum(file.stat().st_size for file in model_files(path)))
                copy = staged / FETCHED
                if path.is_dir():
                    # What links point to is copied; hidden files are not.
                    shutil.copytree(path, copy, ignore=shutil.ignore_patterns(".*"))
                else:
                    shutil.copyfile(path, copy)
                require_model(copy, kind, name)  # once more, as it may have been changed meanwhile
                self._move_in(copy, kind, name, {"source": "added", "files": _digests(copy)})
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        except OSError as error:
            raise WeightsError(f"{self.models} cannot be written: {error.strerror or error}.") from error
        return self.info(kind, name)

    def remove(self, kind: Kind, name: str) -> None:
        """Removes a model, and what stands beside its file: its notes and previews.

        Raises:
            OptionError: there is none of this name, or it is another program's or the package's.
            WeightsError: it cannot be removed.
        """
        entry = self.find(kind, name)
        if not entry.is_own:
            raise OptionError(f"{name} is in {entry.path.parent}, outside {self.models}; it is not removed from here.")
        path = entry.path
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
                self.records.update({entry.key: None})
        except OSError as error:
            raise WeightsError(f"{name} cannot be removed: {error.strerror or error}.") from error

    def verify(self, kind: Kind | None = None, name: str | None = None) -> Iterator[Verified]:
        """Each file of each own model, or of one, by the SHA-256 that was recorded when it was fetched or added.

        Raises:
            OptionError: there is none of this name.
        """
        if kind is not None and name is not None:
            entries = [self.find(kind, name)]
        else:
            entries = [entry for entry in self.entries(kind) if entry.is_own]
        records = self.records.read()
        for entry in entries:
            files = records.get(entry.key, {}).get("files") or {}
            if not files:
                yield Verified(kind=entry.kind, name=entry.name, file=entry.path.name, state="not recorded")
            for file, digest in sorted(files.items()):
                path = entry.path / file if file else entry.path
                yield Verified(kind=entry.kind, name=entry.name, file=file or path.name, state=file_state(path, digest))
        if kind is not None or name is not None:
            return
        for key in sorted(records.keys() - {entry.key for entry in entries}):
            each, _, gone = key.partition("/")
            if each in KINDS:
                yield Verified(kind=each, name=gone, file=gone, state="missing")

    def _require_free(self, kind: Kind, name: str) -> None:
        if any(entry.name.lower() == name.lower() for entry in self.entries(kind)):
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


def _digests(path: Path) -> dict[str, str]:
    if not path.is_dir():
        return {"": sha256(path)}
    return {file.relative_to(path).as_posix(): sha256(file) for file in model_files(path)}
