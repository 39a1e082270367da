"""CLIP's tokens without PyTorch: the vocabulary of SD 1 and SD 2, and the tokenizer of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from seesr.errors import WeightsError
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package

START, END = "<|startoftext|>", "<|endoftext|>"
PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
"""Bytes that stand for themselves in CLIP's vocabulary, as GPT-2's; the others are letters from U+0100 on."""
WHOLE = "tokenizer.json"
"""A tokenizer's file as transformers 5 saves it, in place of `vocab.json` and `merges.txt`."""
WORDS = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
"""What is encoded by itself; the white space between is left out."""


def clip_vocabulary() -> tuple[dict[str, int], list[Any]]:
    """The vocabulary and the merges, pairs of pieces, of SD 1 and SD 2, from CLIP's merges (`weights/clip`).

    Raises:
        WeightsError: the merges are missing.
    """
    path = beside_package("clip") / "merges.txt"
    if not path.exists():
        raise WeightsError(f"{path} is missing; install SeeSR again.")
    merges = _read_merges(path)
    others = sorted(set(range(256)) - set(PRINTABLE))
    letters = [*map(chr, PRINTABLE), *(chr(256 + number) for number in range(len(others)))]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
    return {piece: number for number, piece in enumerate(pieces)}, merges


def require_tokenizer(folder: Path) -> None:
    """Checks that a tokenizer's files are there.

    Raises:
        WeightsError: one is missing, or is not a JSON object; it is named, unlike in the tokenizers' own errors.
    """
    for name in () if (folder / WHOLE).exists() else ("vocab.json", "merges.txt"):
        if not (folder / name).exists():
            raise WeightsError(f"{folder / name} is missing.")
    read_config(folder / ("vocab.json" if (folder / "vocab.json").exists() else WHOLE))


def load_tokenizer(folder: Path | None) -> Tokenizer:
    """The tokenizer of a folder such as `sd-turbo/tokenizer`, without start and end token; None is that of SD 1 and SD 2.

    Raises:
        WeightsError: a file is missing or damaged.
    """
    if folder is None:
        return _tokenizer(*clip_vocabulary())
    require_tokenizer(folder)
    if (folder / "vocab.json").exists():
        return _tokenizer(*_checked(folder, read_config(folder / "vocab.json"), _read_merges(folder / "merges.txt")))
    model = read_config(folder / WHOLE).get("model")
    model = model if isinstance(model, dict) else {}
    return _tokenizer(*_checked(folder, model.get("vocab"), model.get("merges")))


def _checked(folder: Path, vocabulary: Any, merges: Any) -> tuple[dict[str, int], list[Any]]:
    """Both, if each merge joins pieces of the vocabulary to another one."""
    if isinstance(vocabulary, dict) and isinstance(merges, list):
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges]
        numbers = all(type(number) is int and number >= 0 for number in vocabulary.values())
        if numbers and all(len(pair) == 2 and {*pair, "".join(pair)} <= vocabulary.keys() for pair in pairs):
            return vocabulary, pairs
    raise WeightsError(f"the tokenizer in {folder} is damaged: its merges do not fit its vocabulary; get it again.")


def _read_merges(path: Path) -> list[Any]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(first, second) for first, second in map(str.split, filter(None, lines[1:]))]


def _tokenizer(vocabulary: dict[str, int], merges: list[Any]) -> Tokenizer:
    tokenizer = Tokenizer(BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = Normalizers([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
    tokenizer.pre_tokenizer = PreTokenizers([Split(WORDS, "removed", invert=True), ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([START, END])
    return tokenizer
