"""The user's model files and folders, in which names are looked up, and what each file says of itself.

A name is a file's path below its folder without suffix, `people/my style`, or its last part where that is unique. It is
compared with those of the files that are there and never joined to a path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from seesr.errors import OptionError, WeightsError, listed
from seesr.files import data_folder
from seesr.weights.header import Header, read_header

MODELS, LORAS, EMBEDDINGS, VAE_APPROX = "models", "loras", "embeddings", "vae_approx"
CHECKPOINTS, VAES, CONTROLNETS, DEPTH = "checkpoints", "vae", "controlnet", "depth"
"""Folder in the user's data folder, and folders in it."""
PICTOGRAMS, FULL = "pictograms", "full"
"""The embedded checkpoint, and the base of the full model where the cache has it."""
BASE_FOLDER = "sd-turbo"
"""Where a weights folder for upscaling holds its text-to-image base."""
REQUIRED_FOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
REQUIRED = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer",
    "scheduler/scheduler_config.json",
)
"""Of a checkpoint that is a folder."""
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
EMBEDDING_KEY = "emb_params"
"""The tensor of an embedding in A1111's layout; diffusers names it after the word."""
PREVIEWS = (".preview.png", ".png", ".jpg", ".jpeg", ".webp")
MAX_SIDECAR_BYTES = 1 << 20
MAX_TRIGGER_WORDS, MAX_TRIGGER_LENGTH = 16, 300
"""Words, and characters of a word, that are taken from a file."""
SHOWN_NAMES = 20
WIDTHS = {768: "SD 1", 1024: "SD 2", 2048: "SDXL"}
"""Width of the prompt embeddings, which a family of checkpoints has alone."""
_ARCHITECTURES = {"stable-diffusion-v1": "SD 1", "stable-diffusion-v2": "SD 2", "stable-diffusion-xl": "SDXL"}
_VERSIONS = {"sd_v1": "SD 1", "sd_v2": "SD 2", "sdxl": "SDXL"}
_FROM_PROMPT = re.compile(
    r"attn2[._](?:processor\.)?to_[kv](?:_lora\.down\.weight|\.lora[._](?:down|A)\.weight|\.hada_w1_b)$"
)
"""Names of the factors that take prompt embeddings."""
_SECOND_TEXT_ENCODER = re.compile(r"lora_te2_|text_encoder_2\.|^clip_g$")


@dataclass(frozen=True)
class ModelFile:
    """A file of the library."""

    name: str
    path: Path

    @cached_property
    def header(self) -> Header:
        """What the file says of itself.

        Raises:
            WeightsError: it is not a safetensors file, or is cut short.
        """
        return read_header(self.path)

    @cached_property
    def sidecar(self) -> Mapping[str, Any]:
        """What the user says of it, in A1111's `.json` beside it; empty where that cannot be read."""
        path = self._beside(".json")
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MAX_SIDECAR_BYTES else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}

    @property
    def preview(self) -> Path | None:
        """A picture beside it."""
        return next((path for path in map(self._beside, PREVIEWS) if path.is_file()), None)

    @cached_property
    def trigger_words(self) -> tuple[str, ...]:
        """What to write in a prompt: the user's, else its maker's, else the most frequent tags it was trained with."""
        metadata = self.header.metadata
        for words in (
            self.sidecar.get("activation text"),
            metadata.get("modelspec.trigger_phrase"),
            metadata.get("modelspec.usage_hint"),
        ):
            if isinstance(words, str) and words.strip():
                return _words(words)
        return _words(",".join(_frequent_tags(metadata.get("ss_tag_frequency", ""))))

    @cached_property
    def base_model(self) -> str | None:
        """The family of checkpoints that it is for, `SD 1`, `SD 2` or `SDXL`: by its metadata, else by its shapes."""
        metadata, shapes = self.header.metadata, self.header.shapes
        if metadata.get("ss_v2") == "True":
            return "SD 2"
        for value, families in (
            (metadata.get("modelspec.architecture", ""), _ARCHITECTURES),
            (metadata.get("ss_base_model_version", ""), _VERSIONS),
        ):
            for beginning, family in families.items():
                if value.lower().startswith(beginning):
                    return family
        if any(map(_SECOND_TEXT_ENCODER.search, shapes)):
            return "SDXL"
        return WIDTHS.get(self.prompt_width or 0)

    @cached_property
    def prompt_width(self) -> int | None:
        """Of the prompt embeddings that it takes, by the shapes of what changes the attention to them, or of its vectors."""
        if len(self.header.shapes) == 1 or EMBEDDING_KEY in self.header.shapes:
            shape = self.header.shapes.get(EMBEDDING_KEY) or next(iter(self.header.shapes.values()))
            return shape[-1] if shape else None
        widths = (shape[1] for key, shape in self.header.shapes.items() if _FROM_PROMPT.search(key) and len(shape) > 1)
        return next(widths, None)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the tensors, in 12 digits: that of A1111's `Lora hashes`, which names and notes do not change."""
        with self.path.open("rb") as file:
            file.seek(self.header.size)
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()[:12]

    @cached_property
    def file_hash(self) -> str:
        """SHA-256 of the whole file, in 12 digits: that of A1111's `TI hashes`."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]

    def beside(self) -> list[Path]:
        """The files that belong to it: the user's notes and previews."""
        return [path for path in map(self._beside, (".json", *PREVIEWS)) if path.is_file()]

    def require_family(self, width: int, checkpoint: str) -> None:
        """Checks that it is for a checkpoint whose prompt embeddings have this width.

        Raises:
            WeightsError: it is not.
        """
        family, wanted = self.base_model, WIDTHS.get(width)
        if self.prompt_width not in (None, width):
            wide = f"is for {family or 'other checkpoints'}, with prompt embeddings of {self.prompt_width}"
            raise WeightsError(f"{self.name} {wide}, and {checkpoint} has {width}{f' ({wanted})' if wanted else ''}.")
        if family and wanted and family != wanted:
            raise WeightsError(f"{self.name} is for {family}, and {checkpoint} is of {wanted}.")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.stem + suffix)


def models_from() -> tuple[Path, ...]:
    """The folders of other programs that `SEESR_MODELS_FROM` names."""
    return tuple(Path(folder) for folder in os.environ.get(MODELS_FROM_VARIABLE, "").split(os.pathsep) if folder)


def model_folders(kind: str, models: Path | None = None, others: Sequence[Path] | None = None) -> tuple[Path, ...]:
    """Where models of a kind are looked up; where several have the same name, the first folder's counts.

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
    return (own, *dict.fromkeys(place.resolve() for place in places))


class Library:
    """The safetensors files of folders and their sub-folders, read anew whenever it is asked.

    Args:
        folders: need not exist; see `model_folders`.
        kind: what its files are, for errors: `LoRA`.
    """

    def __init__(self, folders: Path | Sequence[Path], kind: str) -> None:
        self.folders, self.kind = (folders,) if isinstance(folders, Path) else tuple(folders), kind

    def files(self) -> list[ModelFile]:
        """All files, by name; a folder that peft wrote is one, and has the folder's name."""
        found = dict[str, ModelFile]()
        for folder in self.folders:
            for path in folder.rglob("*.safetensors"):
                place = path.parent if path.name == ADAPTER_FILE and path.parent != folder else path.with_suffix("")
                name = place.relative_to(folder).as_posix()
                if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
                    found.setdefault(name, ModelFile(name, path))
        return sorted(found.values(), key=lambda file: file.name.lower())

    def find(self, name: str) -> ModelFile:
        """The file of this name.

        Raises:
            OptionError: there is none, or several have it.
        """
        return _find(self.files(), name, self.kind, self.folders[0])


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


@dataclass(frozen=True)
class ModelFolder:
    """A folder of the library that holds a network and its `config.json`."""

    name: str
    path: Path


class FolderLibrary:
    """The folders with a `config.json` in folders and their sub-folders, read anew whenever it is asked.

    Args:
        places: need not exist; see `model_folders`.
        kind: what they are, for errors: `ControlNet`.
    """

    def __init__(self, places: Path | Sequence[Path], kind: str) -> None:
        self.places, self.kind = (places,) if isinstance(places, Path) else tuple(places), kind

    def folders(self) -> list[ModelFolder]:
        """All of them, by name."""
        found = dict[str, ModelFolder]()
        for place in self.places:
            for config in place.glob("*/**/config.json"):
                name = config.parent.relative_to(place).as_posix()
                if not any(part.startswith(".") for part in name.split("/")):
                    found.setdefault(name, ModelFolder(name, config.parent))
        return sorted(found.values(), key=lambda folder: folder.name.lower())

    def find(self, name: str) -> ModelFolder:
        """The folder of this name.

        Raises:
            OptionError: there is none, or several have it.
        """
        return _find(self.folders(), name, self.kind, self.places[0])


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=_Named)


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


def _words(text: str) -> tuple[str, ...]:
    words = dict.fromkeys(" ".join(word.split()) for word in text.split(","))
    return tuple(word for word in words if 0 < len(word) <= MAX_TRIGGER_LENGTH)[:MAX_TRIGGER_WORDS]


def _frequent_tags(text: str) -> list[str]:
    """The tags of kohya's `ss_tag_frequency`, which counts them in each folder of the training set."""
    counts = Counter[str]()
    try:
        for tags in json.loads(text).values():
            for tag, count in tags.items():
                counts[tag] += int(count)
    except (ValueError, AttributeError, TypeError, RecursionError, OverflowError):
        return []
    return [tag for tag, _ in counts.most_common(MAX_TRIGGER_WORDS)]
