"""The text encoder's vocabulary: byte pairs, learnt on the tags and the quality words."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from scripts.training.configs import TEXT_CONFIG
from seesr.tagging.prompt import QUALITY_WORDS

VOCABULARY, END_OF_WORD, SPECIAL_TOKENS = 1024, "</w>", ("<|startoftext|>", "<|endoftext|>")


def train_tokenizer(tags: list[str], folder: Path, vocabulary: int = VOCABULARY) -> None:
    """A byte-pair vocabulary of prompts, of at most `vocabulary` pieces, written as CLIP's `vocab.json` and `merges.txt`."""
    byte_letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    last_letters = [letter + END_OF_WORD for letter in byte_letters]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL_TOKENS),
        initial_alphabet=byte_letters,
        special_tokens=last_letters,  # numbered before it looks at words, in whose order it breaks ties
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    words = " ".join([*tags, QUALITY_WORDS]).lower().replace(",", " , ").split()
    tokenizer.train_from_iterator(words, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    names = [*byte_letters, *last_letters, *(first + second for first, second in merges)]
    names = [*dict.fromkeys(names), *SPECIAL_TOKENS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT_CONFIG["max_position_embeddings"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
