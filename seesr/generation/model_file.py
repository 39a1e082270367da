"""What a file of a LoRA or an embedding says of itself, and what the user says of it in the files beside it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from seesr.errors import WeightsError
from seesr.weights.cache import sha256
from seesr.weights.header import Header, read_header

EMBEDDING_KEY = "emb_params"
"""The tensor of an embedding in A1111's layout; diffusers names it after the word."""
PREVIEWS = (".preview.png", ".png", ".jpg", ".jpeg", ".webp")
MAX_SIDECAR_BYTES = 1 << 20
MAX_TRIGGER_WORDS, MAX_TRIGGER_LENGTH = 16, 300
"""Words, and characters of a word, that are taken from a file."""
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
    """A safetensors file, and the notes and previews beside it."""

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
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]

    @cached_property
    def file_hash(self) -> str:
        """SHA-256 of the whole file, in 12 digits: that of A1111's `TI hashes`."""
        return sha256(self.path)[:12]

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


def readable(files: Iterable[ModelFile]) -> list[ModelFile]:
    """Those whose headers can be read."""
    found = list[ModelFile]()
    for file in files:
        try:
            _ = file.header
        except WeightsError:
            continue
        found.append(file)
    return found


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
