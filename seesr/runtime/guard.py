"""Numbers that are none: noticed where they appear, computed again in float32, and told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seesr.errors import ComputeError

logger = logging.getLogger("seesr")


def guarded(stage: str, models: list[nn.Module], compute: Callable[[], Tensor], notes: list[str]) -> Tensor:
    """What `compute` gives; if that holds NaN or infinity, what it gives once more with `models` in float32.

    `compute` must take its dtype from the models. `notes` is told of a repetition.

    Raises:
        ComputeError: float32 gives no numbers either.
    """
    result = compute()
    if _is_finite(result):
        return result
    del result
    if any(_dtype(model) != torch.float32 for model in models):
        with in_float32(models):
            result = compute()
        if _is_finite(result):
            notes.append(f"{stage} gave no numbers in the models' precision and was computed in float32")
            return result
    raise ComputeError(f"{stage} gives no numbers (NaN or infinity) in float32 either: the weights are damaged.")


@contextmanager
def in_float32(models: list[nn.Module]) -> Iterator[None]:
    """`models` in float32 for a while; going back loses nothing, since that is where they came from."""
    before = [_dtype(model) for model in models]
    try:
        for model in models:
            model.to(torch.float32)
        yield
    finally:
        to_the_end(lambda: [model.to(dtype) for model, dtype in zip(models, before, strict=True)])


def to_the_end(restore: Callable[[], object]) -> None:
    """Runs `restore`; if an exception comes in between, such as a cancel, once more before that goes on."""
    try:
        restore()
    except BaseException:
        restore()
        raise


def _is_finite(tensor: Tensor) -> bool:
    """By rows, some at a time: a comparison of the whole would take as much memory again."""
    rows = max(1, (1 << 24) * tensor.shape[-2] // tensor.numel())
    return all(bool(torch.isfinite(part).all()) for part in tensor.split(rows, dim=-2))


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype
