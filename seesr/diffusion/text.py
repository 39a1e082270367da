"""CLIP text embeddings of prompts: the base model's tokenizer and text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from seesr.diffusion.tokens import END, clip_vocabulary, require_tokenizer
from seesr.weights.state_dict import load_network
from seesr.weights.tensors import StateDict

MAX_TOKENS = 77


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
    require_tokenizer(base / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
    return PromptEncoder(
        tokenizer, load_network(base / "text_encoder", build_text_encoder, dtype, adapt_state_dict, "model")
    )


def clip_tokenizer(pad_token: str | None = None) -> CLIPTokenizer:
    """The tokenizer of SD 1 and SD 2, from CLIP's merges (`weights/clip`).

    Args:
        pad_token: None is the end token, as in SD 1; SD 2 has `!`.

    Raises:
        WeightsError: the merges are missing.
    """
    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocabulary, merges, pad_token=pad_token or END, model_max_length=MAX_TOKENS)


def build_text_encoder(config: dict[str, Any]) -> CLIPTextModel:
    """Without weights: on the meta device."""
    with init_empty_weights():
        return CLIPTextModel(CLIPTextConfig.from_dict(config)).eval()


def adapt_state_dict(state_dict: StateDict) -> StateDict:
    """Accepts the names of transformers before and after 5; `position_ids`, which old versions saved, are computed."""
    return {key.removeprefix("text_model."): state_dict[key] for key in state_dict if not key.endswith("position_ids")}
