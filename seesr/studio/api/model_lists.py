"""The models and styles that A1111's and OpenAI's lists name, and how a client's names of them are understood."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seesr.errors import listed
from seesr.generation.checkpoint_facts import known_checkpoints
from seesr.generation.library import (
    CONTROLNETS,
    EMBEDDINGS,
    FULL,
    LORAS,
    MODELS,
    PICTOGRAMS,
    REQUIRED_FOLDERS,
    VAES,
    FolderLibrary,
    Library,
    model_folders,
    model_places,
)
from seesr.generation.model_file import ModelFile, readable
from seesr.generation.styles import read_styles
from seesr.studio.errors import UnknownNameError
from seesr.weights.resolve import files_digest, folder_digest

HASH_DIGITS = 10
SUFFIX = ".safetensors"
SHOWN_NAMES = 20


@dataclass(frozen=True)
class CheckpointEntry:
    """A checkpoint in the list."""

    name: str
    """By which a job names it."""
    file_name: str
    """Without its folder."""
    hash: str
    """Digits of its digest, as `Model hash` in an infotext; "" where it cannot be read."""

    @property
    def title(self) -> str:
        return f"{self.file_name} [{self.hash}]" if self.hash else self.file_name

    def is_called(self, name: str) -> bool:
        """Whether A1111 would take `name` for it: title, file, name or hash."""
        title, name = self.title.lower(), name.strip().lower()
        bare, _, digits = name.partition(" [")
        names = {title, self.file_name.lower(), self.name.lower(), self.name.lower().rpartition("/")[2]}
        is_hash = len(name) >= HASH_DIGITS and name.startswith(self.hash) and bool(self.hash)
        return name in names or is_hash or (bare in names and (not digits or digits.startswith(self.hash)))


@dataclass(frozen=True)
class Known:
    """What there is at one moment."""

    checkpoints: Sequence[CheckpointEntry] = ()
    """The first one is that of jobs that name none."""
    vaes: Sequence[str] = ()
    styles: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    controlnets: Sequence[str] = ()

    def checkpoint(self, name: str) -> CheckpointEntry:
        """The checkpoint that is called so; "" is the first one.

        Raises:
            UnknownNameError: there is none.
        """
        found = (
            self.checkpoints[0] if not name else next((entry for entry in self.checkpoints if entry.is_called(name)), None)
        )
        if found is None:
            titles = listed((entry.title for entry in self.checkpoints), SHOWN_NAMES)
            raise UnknownNameError(f"unknown checkpoint {name[:100]!r}; there are: {titles}.")
        return found

    def vae(self, name: str) -> str | None:
        """The VAE that is called so; None where the checkpoint's own is meant.

        Raises:
            UnknownNameError: there is none.
        """
        stem = name.strip().removesuffix(SUFFIX)
        if stem.lower() in ("", "automatic", "none"):
            return None
        if stem not in self.vaes:
            raise UnknownNameError(f"unknown VAE {name[:100]!r}; there are: {listed(self.vaes, SHOWN_NAMES) or 'none'}.")
        return stem


class ModelLists:
    """The models of a data folder, in the order of the lists. Digests are computed once for each path and time of change.

    Args:
        data: the data folder.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self._digests, self._lock = dict[tuple[Path, int], str](), threading.Lock()

    def known(self) -> Known:
        """What there is now."""
        return Known(self.checkpoints(), list(self.vaes()), self.styles(), self.controlnets())

    def checkpoints(self) -> list[CheckpointEntry]:
        """The default one first, then the embedded one and the user's."""
        entries = list[CheckpointEntry]()
        for place in known_checkpoints(self.data / MODELS):
            file_name = place.name if place.name in (FULL, PICTOGRAMS) else place.path.name
            entries.append(CheckpointEntry(place.name, file_name, self._digest(place.path)))
        return entries

    def controlnets(self) -> list[str]:
        """Names of the ControlNets."""
        return [folder.name for folder in FolderLibrary(self._folders(CONTROLNETS), "ControlNet").models()]

    def vaes(self) -> dict[str, str]:
        """Names of the VAEs, and of their files."""
        return {place.name: place.path.name for folder in self._folders(VAES) for place in model_places(folder)}

    def loras(self) -> list[ModelFile]:
        """The LoRAs whose headers can be read."""
        return readable(Library(self._folders(LORAS), "LoRA").models())

    def embeddings(self) -> list[ModelFile]:
        """The embeddings whose headers can be read."""
        return readable(Library(self._folders(EMBEDDINGS), "embedding").models())

    def styles(self) -> Mapping[str, tuple[str, str]]:
        """(prompt, negative prompt) of each style of `styles.csv`, by name."""
        return read_styles(self.data / "styles.csv")

    def _folders(self, kind: str) -> tuple[Path, ...]:
        return model_folders(kind, self.data / MODELS)

    def _digest(self, path: Path) -> str:
        try:
            files = path.rglob("*") if path.is_dir() else [path]
            key = path, max((file.stat().st_mtime_ns for file in files), default=0)
            with self._lock:
                if key not in self._digests:
                    digest = folder_digest(path, REQUIRED_FOLDERS) if path.is_dir() else files_digest({"checkpoint": path})
                    self._digests[key] = digest[:HASH_DIGITS]
                return self._digests[key]
        except OSError:
            return ""
