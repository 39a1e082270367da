"""CLIP text embeddings of prompts, as the base model was trained with."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from seesr.errors import WeightsError
from seesr.weights.files import read_config
from seesr.weights.state_dict import assign_state_dict, read_state_dict


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
    folder = base / "text_encoder"
    config = CLIPTextConfig.from_dict(read_config(folder / "config.json"))
    with init_empty_weights():
        text_encoder = CLIPTextModel(config).eval()
    weights = {
        key.removeprefix("text_model."): tensor
        for key, tensor in read_state_dict(folder, "model", dtype).items()
        if not key.endswith("position_ids")
    }
    assign_state_dict(text_encoder, weights, str(folder), dtype)
    return PromptEncoder(tokenizer, text_encoder)
