"""How many tokens a prompt has, as the pipeline reads it, without PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tokenizers import Tokenizer

from seesr.generation.lora_tags import split_tags
from seesr.generation.model_file import EMBEDDING_KEY, ModelFile
from seesr.generation.prompt_syntax import BREAKS, parse_prompt

CHUNK = 75
"""Tokens that the text encoder reads at once, without start and end; a longer prompt is read in several parts."""
_STEPS = 100


def count_tokens(tokenizer: Tokenizer, prompt: str, embeddings: Mapping[str, int] | None = None) -> int:
    """Tokens of a prompt, without the tags of its LoRAs, the signs of its syntax, and start and end.

    Of prompts that AND joins, and of what changes from step to step, the longest counts.

    Args:
        embeddings: vectors of each embedding by its name, which stand for it in place of tokens.

    Raises:
        OptionError: a tag of a LoRA cannot be read, or AND joins too many prompts.
    """
    words = {name.lower(): count for name, count in (embeddings or {}).items()}
    pattern = word_pattern(words) if words else None
    prompts = [prompt.fragments(step, _STEPS) for prompt in parse_prompt(split_tags(prompt)[0]) for step in (0, _STEPS - 1)]
    return max(
        sum(
            words[part.lower()] if part.lower() in words else len(tokenizer.encode(part, add_special_tokens=False).ids)
            for fragment in fragments
            for text in BREAKS.split(fragment.text)
            for part in (pattern.split(text) if pattern else [text])
        )
        for fragments in prompts
    )


def embedding_vectors(files: Iterable[ModelFile]) -> dict[str, int]:
    """Vectors of each embedding by its name, and by the last part of it."""
    vectors = dict[str, int]()
    for file in files:
        shape = file.header.shapes.get(EMBEDDING_KEY) or next(iter(file.header.shapes.values()), ())
        count = shape[0] if len(shape) > 1 else 1
        vectors |= {file.name: count, file.name.rpartition("/")[2]: count}
    return vectors


def word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Any of the words, the longest first, where nothing that belongs to a word is beside it."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
