"""NaN and infinity: noticed where they appear, computed again in float32, and noted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seesr.errors import ComputeError
from seesr.machine.device import dtype_of
from seesr.notes import Notes, add_to_all


def guarded(stage: str, networks: Sequence[nn.Module], compute: Callable[[], Tensor], notes: Iterable[Notes]) -> Tensor:
    """What `compute` gives; if that holds NaN or infinity, what it gives once more with `networks` in float32.

    `compute` must take its dtype from the networks. A repetition is noted.

    Raises:
        ComputeError: there is NaN or infinity in float32 too.
    """
    result = compute()
    if _is_finite(result):
        return result
    del result
    if any(dtype_of(network) != torch.float32 for network in networks):
        with in_float32(networks):
            result = compute()
        if _is_finite(result):
            add_to_all(notes, f"{stage} gave NaN or infinity in the networks' precision and was computed in float32")
            return result
    raise ComputeError(f"{stage} gives NaN or infinity in float32 too: the weights are damaged.")


@contextmanager
def in_float32(networks: Sequence[nn.Module]) -> Iterator[None]:
    """`networks` in float32 for a while; going back loses nothing, since that is where they came from."""
    before = [dtype_of(network) for network in networks]
    try:
        for network in networks:
            network.to(torch.float32)
        yield
    finally:
        restore_fully(lambda: [network.to(dtype) for network, dtype in zip(networks, before, strict=True)])


def restore_fully(restore: Callable[[], object]) -> None:
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
