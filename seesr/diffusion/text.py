"""CLIP text embeddings of prompts, as the base model was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from seesr.errors import WeightsError
from seesr.weights.config import read_config
from seesr.weights.state_dict import load_network
from seesr.weights.tensors import StateDict


class PromptEncoder(nn.Module):
    """Prompts to embeddings `(B, 77, width)`; what goes beyond 77 tokens is cut."""

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder

    @property
    def length(self) -> int:
        """Tokens that are read, with one that begins and one that ends a prompt."""
        return self.text_encoder.config.max_position_embeddings

    def tokens(self, prompt: str) -> int:
        """How many a prompt has."""
        return len(self.tokenizer(prompt, verbose=False).input_ids)

    def forward(self, prompts: list[str]) -> Tensor:
        # As lists: asked for tensors, the tokenizer would turn an out-of-memory error into another one.
        tokens = self.tokenizer(prompts, padding="max_length", max_length=self.length, truncation=True).input_ids
        return self.text_encoder(torch.tensor(tokens, device=self.text_encoder.device)).last_hidden_state


def load_prompt_encoder(base: Path, dtype: torch.dtype = torch.float32) -> PromptEncoder:
    """Tokenizer and text encoder of a base folder such as `sd-turbo/`.

    Raises:
        WeightsError: a file is missing, or does not fit its config.
    """
    for name in ("vocab.json", "merges.txt"):
        if not (base / "tokenizer" / name).exists():
            raise WeightsError(f"{base / 'tokenizer' / name} is missing.")
    read_config(base / "tokenizer" / "vocab.json")  # for its errors: the tokenizer's name no file
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
    return PromptEncoder(tokenizer, load_network(base / "text_encoder", _build, dtype, _rename, "model"))


def _build(config: dict[str, Any]) -> CLIPTextModel:
    with init_empty_weights():
        return CLIPTextModel(CLIPTextConfig.from_dict(config)).eval()


def _rename(tensors: StateDict) -> StateDict:
    """Names of transformers before and after 5; what older ones saved of the positions is computed."""
    return {key.removeprefix("text_model."): tensors[key] for key in tensors if not key.endswith("position_ids")}
