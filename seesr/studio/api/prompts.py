"""Routes of what a prompt is written for: the checkpoints, and how long it is for one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import HTTPConnection
from tokenizers import Tokenizer

from seesr.diffusion.tokens import load_tokenizer
from seesr.errors import WeightsError
from seesr.generation.checkpoint_facts import (
    CheckpointDefaults,
    default_checkpoint,
    known_checkpoints,
    native_side,
    read_checkpoint_defaults,
)
from seesr.generation.library import EMBEDDINGS, MODELS, Library, ModelPlace, matching, model_folders
from seesr.generation.model_file import readable
from seesr.generation.token_count import CHUNK, count_tokens, embedding_vectors
from seesr.lru_cache import LRUCache
from seesr.models.contents import inspect
from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.schemas import CheckpointFacts, Prompt, TokenCount
from seesr.studio.errors import NotFoundError

router = APIRouter(tags=["prompts"])


class Tokenizers:
    """The tokenizers of checkpoints, of which the last ones stay in memory. Thread-safe."""

    def __init__(self, count: int = 4) -> None:
        self._kept, self._lock = LRUCache[Tokenizer](count), threading.Lock()

    def of(self, checkpoint: Path) -> Tokenizer:
        """That of a folder; of a single file that of SD 1 and SD 2.

        Raises:
            WeightsError: a file is missing or damaged.
        """
        folder = checkpoint / "tokenizer" if checkpoint.is_dir() else None
        key = folder and (folder, max((file.stat().st_mtime_ns for file in folder.glob("*.*")), default=0))
        with self._lock:
            return self._kept.get(key, lambda: load_tokenizer(folder))


def _tokenizers(connection: HTTPConnection) -> Tokenizers:
    return connection.app.state.tokenizers


@router.get("/checkpoints")
def checkpoints(studio: AnyStudio, user: AnyUser) -> list[CheckpointFacts]:
    """The checkpoints that jobs may name, and what each asks for."""
    del user
    models = studio.files.root / MODELS
    default = default_checkpoint(models)
    others = [place for place in known_checkpoints(models) if place.path != default.path]
    return [_facts(place, place is default) for place in (default, *others)]


@router.post("/tokens")
def tokens(
    studio: AnyStudio, user: AnyUser, tokenizers: Annotated[Tokenizers, Depends(_tokenizers)], given: Prompt
) -> TokenCount:
    """How many tokens a prompt has, without the tags of its LoRAs and the signs of its syntax."""
    del user
    models = studio.files.root / MODELS
    place = default_checkpoint(models) if given.checkpoint is None else _known(models, given.checkpoint)
    embeddings, prompt = Library(model_folders(EMBEDDINGS, models), "embedding").models(), given.prompt.lower()
    named = readable(file for file in embeddings if file.name.rpartition("/")[2].lower() in prompt)
    count = count_tokens(tokenizers.of(place.path), given.prompt, embedding_vectors(named))
    return TokenCount(tokens=count, limit=CHUNK)


def _known(models: Path, name: str) -> ModelPlace:
    found = matching([*known_checkpoints(models)], name)
    if not found:
        raise NotFoundError(f"unknown checkpoint {name[:100]!r}; GET /checkpoints lists them.")
    return found[0]


def _facts(place: ModelPlace, is_default: bool) -> CheckpointFacts:
    contents = inspect(place.path)
    try:
        side, defaults, problem = native_side(place.path), read_checkpoint_defaults(place.path), contents.problem
    except WeightsError as error:
        side, defaults, problem = None, CheckpointDefaults(), contents.problem or str(error).rstrip(".")
    return CheckpointFacts(
        name=place.name,
        is_default=is_default,
        base=contents.base,
        side=side,
        steps=defaults.steps,
        guidance_scale=defaults.guidance_scale,
        problem=problem,
    )
