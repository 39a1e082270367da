"""The user's model files and folders, in which names are looked up.

A name is a file's path below its folder without suffix, `people/my style`, or its last part where that is unique. It is
compared with those of the files that are there and never joined to a path.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from seesr.errors import OptionError, WeightsError, listed
from seesr.files import data_folder
from seesr.generation.model_file import ModelFile
from seesr.weights.manifest import beside_package

MODELS, LORAS, EMBEDDINGS, VAE_APPROX = "models", "loras", "embeddings", "vae_approx"
CHECKPOINTS, VAES, CONTROLNETS, DEPTH = "checkpoints", "vae", "controlnet", "depth"
"""Folder in the user's data folder, and folders in it."""
PICTOGRAMS, FULL = "pictograms", "full"
"""The embedded checkpoint, and the base of the full model where the cache has it."""
BASE_FOLDER = "sd-turbo"
"""Where a weights folder for upscaling holds its text-to-image base."""
REQUIRED = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer",
    "scheduler/scheduler_config.json",
)
"""Of a checkpoint that is a folder."""
REQUIRED_FOLDERS = tuple(path.partition("/")[0] for path in REQUIRED)
MODELS_FROM_VARIABLE = "SEESR_MODELS_FROM"
"""Folders of other programs whose models are found too, with the system's separator of paths between them."""
OTHER_PROGRAMS = {
    CHECKPOINTS: ("models/Stable-diffusion", "models/checkpoints"),
    LORAS: ("models/Lora", "models/LyCORIS", "models/loras"),
    VAES: ("models/VAE", "models/vae"),
    CONTROLNETS: ("models/ControlNet", "models/controlnet"),
    EMBEDDINGS: ("embeddings", "models/embeddings"),
    DEPTH: (),
}
"""Where AUTOMATIC1111's web UI and ComfyUI keep each kind."""
ADAPTER_FILE = "adapter_model.safetensors"
"""Of a folder that peft wrote."""
SHOWN_NAMES = 20


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=_Named)


def models_from() -> tuple[Path, ...]:
    """The folders of other programs that `SEESR_MODELS_FROM` names."""
    return tuple(Path(folder) for folder in os.environ.get(MODELS_FROM_VARIABLE, "").split(os.pathsep) if folder)


def model_folders(kind: str, models: Path | None = None, others: Sequence[Path] | None = None) -> tuple[Path, ...]:
    """Where models of a kind are looked up; where several have the same name, the first folder's counts.

    The LoRAs that come with the embedded checkpoint are last.

    Args:
        kind: a folder in `models/`, such as `loras`.
        models: None is that of the user's data folder.
        others: folders of other programs, or `models` in them; None are those of `SEESR_MODELS_FROM`.
    """
    own = (data_folder() / MODELS if models is None else models) / kind
    places = [
        root / place
        for root in (models_from() if others is None else others)
        for given in OTHER_PROGRAMS[kind]
        for place in (given, given.removeprefix(f"{MODELS}/"))
        if (root / place).is_dir()
    ]
    # Resolved, because a folder has two of the names where the file system does not tell capitals apart.
    embedded = [folder for folder in (beside_package(PICTOGRAMS) / LORAS,) if kind == LORAS and folder.is_dir()]
    return (own, *dict.fromkeys(place.resolve() for place in places), *embedded)


def missing_file(checkpoint: Path) -> str:
    """The first required file that a checkpoint's folder lacks; "" if it has all."""
    return next((path for path in REQUIRED if not (checkpoint / path).exists()), "")


def require_no_code(folder: Path, name: str) -> None:
    """Raises WeightsError, which calls the folder `name`, if it holds Python files."""
    if code := next(folder.rglob("*.py"), None):
        raise WeightsError(f"{name} holds code ({code.relative_to(folder)}), which is never run; use one without.")


def require_safetensors(folder: Path, name: str) -> None:
    """Raises WeightsError, which calls the folder `name`, if it holds no safetensors file."""
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(f"{name} has no .safetensors file, and no other is read; get it as safetensors.")


@dataclass(frozen=True)
class ModelPlace:
    """A model of the library: a safetensors file, or a folder that diffusers wrote."""

    name: str
    """Its path below the folder of its kind, a file's without suffix."""
    path: Path


def model_places(folder: Path, suffixes: Sequence[str] = (".safetensors",)) -> Iterator[ModelPlace]:
    """The models in a folder and its sub-folders, in the order of their names; hidden ones are left out.

    A folder with `model_index.json`, `config.json` or `unet/` is one model, and so is one that peft wrote.
    """
    try:
        with os.scandir(folder) as entries:
            beneath = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:  # there is none, or it cannot be read
        return
    for entry in beneath:
        path = folder / entry.name
        if not entry.is_dir():
            if path.suffix.lower() in suffixes and entry.is_file():
                yield ModelPlace(path.stem, path)
        elif (path / ADAPTER_FILE).is_file():
            yield ModelPlace(path.name, path / ADAPTER_FILE)
        elif any((path / mark).exists() for mark in ("model_index.json", "config.json", "unet")):
            yield ModelPlace(path.name, path)
        elif not entry.is_symlink():  # which may lead in a circle
            for place in model_places(path, suffixes):
                yield ModelPlace(f"{path.name}/{place.name}", place.path)


def find_model(name: str | os.PathLike[str], kind: str) -> Path | None:
    """The file or folder `name`, else that of `find_known_model`."""
    return Path(name) if Path(name).exists() else find_known_model(str(name), kind)


def find_known_model(name: str, kind: str) -> Path | None:
    """The folder or safetensors file of that name among the user's models of a kind; None if there is none.

    Raises:
        OptionError: several have it.
    """
    places = dict[str, ModelPlace]()
    for folder in model_folders(kind):
        for place in model_places(folder):
            places.setdefault(place.name, place)
    for wanted in (name, name.removesuffix(".safetensors")):
        if any(wanted in (place.name, place.name.rpartition("/")[2]) for place in places.values()):
            return _find(list(places.values()), wanted, kind, Path(kind)).path
    return None


class _Library(ABC, Generic[Entry]):
    """The models of one form in folders and their sub-folders, read anew whenever it is asked.

    Args:
        folders: need not exist; see `model_folders`.
        kind: what they are, for errors: `LoRA`.
    """

    def __init__(self, folders: Path | Sequence[Path], kind: str) -> None:
        self.folders, self.kind = (folders,) if isinstance(folders, Path) else tuple(folders), kind

    def models(self) -> list[Entry]:
        """All of them, by name; where several folders have a name, the first one's counts."""
        models = dict[str, Entry]()
        for folder in self.folders:
            for model in self._models_in(folder):
                if not any(part.startswith(".") for part in model.name.split("/")):
                    models.setdefault(model.name, model)
        return sorted(models.values(), key=lambda model: model.name.lower())

    def find(self, name: str) -> Entry:
        """The one of this name.

        Raises:
            OptionError: there is none, or several have it.
        """
        return _find(self.models(), name, self.kind, self.folders[0])

    @abstractmethod
    def _models_in(self, folder: Path) -> Iterator[Entry]:
        """Those in a folder, hidden ones too."""


class Library(_Library[ModelFile]):
    """The safetensors files; a folder that peft wrote is one, and has the folder's name."""

    def _models_in(self, folder: Path) -> Iterator[ModelFile]:
        for path in folder.rglob("*.safetensors"):
            place = path.parent if path.name == ADAPTER_FILE and path.parent != folder else path.with_suffix("")
            if path.is_file():
                yield ModelFile(place.relative_to(folder).as_posix(), path)


class FolderLibrary(_Library[ModelPlace]):
    """The folders with a `config.json`, each of which holds a network."""

    def _models_in(self, folder: Path) -> Iterator[ModelPlace]:
        for config in folder.glob("*/**/config.json"):
            yield ModelPlace(config.parent.relative_to(folder).as_posix(), config.parent)


def matching(entries: Sequence[Entry], name: str) -> list[Entry]:
    """The one of this name, else those whose name ends in it."""
    return [entry for entry in entries if entry.name == name] or [
        entry for entry in entries if entry.name.rpartition("/")[2] == name
    ]


def _find(entries: Sequence[Entry], name: str, kind: str, folder: Path) -> Entry:
    """The one of this name, or whose name ends in it."""
    found = matching(entries, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise OptionError(f"several {kind} files are called {name!r}: write {_listed(found)}.")
    raise OptionError(f"unknown {kind} {name!r}; models/{folder.name} has: {_listed(entries) or 'none'}.")


def _listed(entries: Sequence[_Named]) -> str:
    return listed((entry.name for entry in entries), SHOWN_NAMES)
