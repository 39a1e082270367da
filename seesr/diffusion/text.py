"""CLIP text embeddings of prompts: the base model's tokenizer and text encoder."""

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
    """Prompts to embeddings `(B, 77, width)`; prompts are truncated to 77 tokens."""

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder

    @property
    def max_tokens(self) -> int:
        """Tokens after which a prompt is truncated, start and end token included."""
        return self.text_encoder.config.max_position_embeddings

    def count_tokens(self, prompt: str) -> int:
        """Tokens of `prompt`, start and end token included."""
        return len(self.tokenizer(prompt, verbose=False).input_ids)

    def hidden_states(self, tokens: Tensor, clip_skip: int = 1) -> Tensor:
        """Embeddings `(B, n, width)` of tokens `(B, n)`, after the last layer, with `clip_skip` 2 the one before, and so on.

        All go through the final layer norm.
        """
        if clip_skip == 1:
            return self.text_encoder(tokens).last_hidden_state
        states = self.text_encoder(tokens, output_hidden_states=True).hidden_states
        model = getattr(self.text_encoder, "text_model", self.text_encoder)  # transformers before and after 5
        return model.final_layer_norm(states[-min(clip_skip, len(states))])

    def forward(self, prompts: list[str]) -> Tensor:
        # As lists: with `return_tensors` the tokenizer would replace an out-of-memory error by another error.
        tokens = self.tokenizer(prompts, padding="max_length", max_length=self.max_tokens, truncation=True).input_ids
        return self.hidden_states(torch.tensor(tokens, device=self.text_encoder.device))


def load_prompt_encoder(base: Path, dtype: torch.dtype = torch.float32) -> PromptEncoder:
    """Reads the tokenizer and the text encoder of a base folder such as `sd-turbo/`.

    Raises:
        WeightsError: a file is missing, or does not fit its config.
    """
    folder = base / "tokenizer"
    whole = "tokenizer.json"  # as transformers 5 saves it
    for name in () if (folder / whole).exists() else ("vocab.json", "merges.txt"):
        if not (folder / name).exists():
            raise WeightsError(f"{folder / name} is missing.")
    # Raises errors that name the file, unlike the tokenizer's.
    read_config(folder / ("vocab.json" if (folder / "vocab.json").exists() else whole))
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
    return PromptEncoder(tokenizer, load_network(base / "text_encoder", _build, dtype, _adapt_state_dict, "model"))


def _build(config: dict[str, Any]) -> CLIPTextModel:
    with init_empty_weights():
        return CLIPTextModel(CLIPTextConfig.from_dict(config)).eval()


def _adapt_state_dict(state_dict: StateDict) -> StateDict:
    """Accepts the names of transformers before and after 5; `position_ids`, which old versions saved, are computed."""
    return {key.removeprefix("text_model."): state_dict[key] for key in state_dict if not key.endswith("position_ids")}
