"""The user's models that are there, and what is known of each: read from their headers, and kept in an index.

Names are looked up among what is there and never joined to paths.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from seesr.errors import OptionError, WeightsError, listed
from seesr.files import data_folder
from seesr.generation.library import MODELS, matching, model_folders, model_places, models_from
from seesr.generation.model_file import ModelFile
from seesr.models.contents import KINDS, LEGACY_SUFFIXES, NAMES, Contents, Kind, inspect
from seesr.weights.cache import sha256
from seesr.weights.records import Record, Records

MAX_NAME = 100
SHOWN = 20


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
    """Not in a folder of another program, nor one that comes with the embedded checkpoint: those are never changed."""
    sha256: str | None = None
    """Of a model of one file, where it was computed."""
    source: str | None = None
    """Where it was fetched from."""
    licence: str | None = None
    licence_page: str | None = None


@dataclass(frozen=True)
class Entry:
    """A model that is there."""

    kind: Kind
    name: str
    path: Path
    is_own: bool
    """As in `ModelInfo`."""

    @property
    def key(self) -> str:
        """Of its record."""
        return f"{self.kind}/{self.name}"

    @property
    def preview(self) -> Path | None:
        """The picture beside its file."""
        return None if self.path.is_dir() else ModelFile(self.name, self.path).preview


class ModelListing:
    """Lists the models of a data folder, and those of other programs. Thread-safe; several processes may share a folder.

    Args:
        data: holds `models/`; None is the user's (`data_folder`).
        others: folders of AUTOMATIC1111's web UI or ComfyUI; None are those of `SEESR_MODELS_FROM`.
    """

    def __init__(self, data: Path | None = None, others: Sequence[Path] | None = None) -> None:
        self.models = (data or data_folder()) / MODELS
        self.others = models_from() if others is None else tuple(others)
        self.records, self.index = Records(self.models / "records.json"), Records(self.models / ".index.json")

    def list_models(self, kind: Kind | None = None) -> list[ModelInfo]:
        """All models, or those of a kind, in the order of their names. Headers that did not change are not read again."""
        records, index = self.records.read(), self.index.read()
        facts = {entry: self._facts(entry, index) for entry in self.entries(kind)}
        paths = {str(entry.path): fact for entry, fact in facts.items()}
        changes: dict[str, Record | None] = {path: fact for path, fact in paths.items() if index.get(path) != fact}
        if kind is None:
            changes |= dict.fromkeys(index.keys() - paths.keys())
        self._keep(changes)
        infos = [_info(entry, fact, records.get(entry.key, {})) for entry, fact in facts.items()]
        return sorted(infos, key=lambda info: (KINDS.index(info.kind), info.name.lower()))

    def info(self, kind: Kind, name: str) -> ModelInfo:
        """A model.

        Raises:
            OptionError: there is none of this name.
        """
        entry = self.find(kind, name)
        return _info(entry, self._facts(entry, self.index.read()), self.records.read().get(entry.key, {}))

    def preview(self, kind: Kind, name: str) -> bytes:
        """The picture that stands beside a model's file.

        Raises:
            OptionError: there is no model of this name, or no picture beside it.
            WeightsError: it cannot be read.
        """
        path = self.find(kind, name).preview
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
        entry = self.find(kind, name)
        if entry.path.is_dir():
            raise OptionError(f"{name} is a folder, which has no digest of its own.")
        facts = self._facts(entry, self.index.read())
        if facts.get("sha256") is None:
            facts["sha256"] = _sha256(entry.path)
            self._keep({str(entry.path): facts})
        return facts["sha256"]

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """All models, or those of a kind, without what is known of them; of several with a name the first, one's own."""
        found = dict[str, Entry]()
        for each in KINDS if kind is None else (kind,):
            for number, folder in enumerate(model_folders(each, self.models, self.others)):
                for place in model_places(folder, (".safetensors", *LEGACY_SUFFIXES)):
                    entry = Entry(each, place.name, place.path, is_own=number == 0)
                    found.setdefault(entry.key, entry)
        return list(found.values())

    def find(self, kind: Kind, name: str) -> Entry:
        """The model of this name, or whose name ends in it.

        Raises:
            OptionError: there is none, or several.
        """
        entries = self.entries(kind)
        found = matching(entries, name)
        if len(found) == 1:
            return found[0]
        names = listed((entry.name for entry in found or entries), SHOWN) or "none"
        what = "several are called" if found else "unknown"
        raise OptionError(f"{NAMES[kind]}: {what} {name[:MAX_NAME]!r}; models/{kind} has: {names}.")

    def _facts(self, entry: Entry, index: dict[str, Record]) -> Record:
        """Size, time and contents of a model, from the index where it did not change."""
        size = time = 0
        for path in model_files(entry.path):
            try:
                stat = path.stat()
            except OSError:  # removed meanwhile, or a link that leads nowhere
                continue
            size, time = size + stat.st_size, max(time, stat.st_mtime_ns)
        known = index.get(str(entry.path), {})
        if (known.get("size"), known.get("time")) == (size, time) and known.keys() >= {"kind", "base", "problem"}:
            return known
        contents = _contents(entry)
        is_lora = entry.kind == contents.kind == "loras"
        words = list(ModelFile(entry.name, entry.path).trigger_words) if is_lora else []
        facts = {"size": size, "time": time, "kind": contents.kind, "base": contents.base, "problem": contents.problem}
        return facts | {"words": words}

    def _keep(self, changes: dict[str, Record | None]) -> None:
        """Writes the index; where that is not possible, headers are read again the next time."""
        if changes and self.models.is_dir():
            try:
                self.index.update(changes)
            except OSError:
                return


def model_files(path: Path) -> list[Path]:
    """All files of a model, of a folder those that are not hidden."""
    if not path.is_dir():
        return [path]
    found = (Path(root) / name for root, _, names in os.walk(path) for name in names)
    return sorted(path for path in found if not path.name.startswith("."))


def _contents(entry: Entry) -> Contents:
    path = entry.path
    if path.suffix.lower() in LEGACY_SUFFIXES:
        return Contents(None, problem="it is no safetensors file, and is never read: it may run code")
    contents = inspect(path)
    if contents.kind not in (None, entry.kind):
        found = NAMES[contents.kind]
        return Contents(contents.kind, contents.base, f"it is a {found}; move it to models/{contents.kind}")
    return contents


def _info(entry: Entry, facts: Record, record: Record) -> ModelInfo:
    return ModelInfo(
        kind=entry.kind,
        name=entry.name,
        size=facts["size"],
        base=facts["base"],
        problem=facts["problem"],
        trigger_words=tuple(facts.get("words", ())),
        has_preview=entry.preview is not None,
        is_folder=entry.path.is_dir(),
        is_own=entry.is_own,
        sha256=facts.get("sha256"),
        source=record.get("source") if entry.is_own else None,
        licence=record.get("licence") if entry.is_own else None,
        licence_page=record.get("licence_page") if entry.is_own else None,
    )


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
