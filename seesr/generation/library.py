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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from seesr.errors import OptionError, WeightsError
from seesr.files import data_folder
from seesr.weights.header import Header, read_header

MODELS, LORAS, EMBEDDINGS, VAE_APPROX = "models", "loras", "embeddings", "vae_approx"
CONTROLNETS, DEPTH = "controlnet", "depth"
"""Folder in the user's data folder, and folders in it."""
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


class Library:
    """The safetensors files of a folder and its sub-folders, read anew whenever it is asked.

    Args:
        folder: need not exist.
        kind: what its files are, for errors: `LoRA`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind

    def files(self) -> list[ModelFile]:
        """All files, by name; a folder that peft wrote is one, and has the folder's name."""
        found = list[ModelFile]()
        for path in self.folder.rglob("*.safetensors"):
            place = path.parent if path.name == ADAPTER_FILE and path.parent != self.folder else path.with_suffix("")
            name = place.relative_to(self.folder).as_posix()
            if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
                found.append(ModelFile(name, path))
        return sorted(found, key=lambda file: file.name.lower())

    def find(self, name: str) -> ModelFile:
        """The file of this name.

        Raises:
            OptionError: there is none, or several have it.
        """
        return _find(self.files(), name, self.kind, self.folder)


def require_no_code(folder: Path, name: str) -> None:
    """Raises WeightsError, which calls the folder `name`, if it holds Python files."""
    if code := next(folder.rglob("*.py"), None):
        raise WeightsError(f"{name} holds code ({code.relative_to(folder)}), which is never run; use one without.")


def require_safetensors(folder: Path, name: str) -> None:
    """Raises WeightsError, which calls the folder `name`, if it holds no safetensors file."""
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(f"{name} has no .safetensors file, and no other is read; get it as safetensors.")


def find_model(name: str | os.PathLike[str], kind: str) -> Path | None:
    """The file or folder `name`, else that of `find_known_model`."""
    return Path(name) if Path(name).exists() else find_known_model(str(name), kind)


def find_known_model(name: str, kind: str) -> Path | None:
    """The folder or safetensors file of that name in `models/<kind>`; None if there is none.

    Raises:
        OptionError: several files have it.
    """
    known = data_folder() / MODELS / kind
    folders = {path.name: path for path in known.iterdir() if path.is_dir()} if known.is_dir() else {}
    if name in folders:
        return folders[name]
    library, stem = Library(known, kind), name.removesuffix(".safetensors")
    named = any(stem in (file.name, file.name.rpartition("/")[2]) for file in library.files())
    return library.find(stem).path if named else None


@dataclass(frozen=True)
class ModelFolder:
    """A folder of the library that holds a network and its `config.json`."""

    name: str
    path: Path


class FolderLibrary:
    """The folders with a `config.json` in a folder and its sub-folders, read anew whenever it is asked.

    Args:
        folder: need not exist.
        kind: what they are, for errors: `ControlNet`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind

    def folders(self) -> list[ModelFolder]:
        """All of them, by name."""
        found = list[ModelFolder]()
        for config in self.folder.glob("*/**/config.json"):
            name = config.parent.relative_to(self.folder).as_posix()
            if not any(part.startswith(".") for part in name.split("/")):
                found.append(ModelFolder(name, config.parent))
        return sorted(found, key=lambda folder: folder.name.lower())

    def find(self, name: str) -> ModelFolder:
        """The folder of this name.

        Raises:
            OptionError: there is none, or several have it.
        """
        return _find(self.folders(), name, self.kind, self.folder)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=_Named)


def _find(entries: Sequence[Entry], name: str, kind: str, folder: Path) -> Entry:
    """The one of this name, or whose name ends in it."""
    found = [entry for entry in entries if entry.name == name] or [
        entry for entry in entries if entry.name.rpartition("/")[2] == name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise OptionError(f"several {kind} files are called {name!r}: write {_listed(found)}.")
    raise OptionError(f"unknown {kind} {name!r}; models/{folder.name} has: {_listed(entries) or 'none'}.")


def _listed(entries: Sequence[_Named]) -> str:
    return ", ".join(entry.name for entry in entries[:SHOWN_NAMES]) + (", ..." if len(entries) > SHOWN_NAMES else "")


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
