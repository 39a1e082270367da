"""The NaN guard: a stage that gives NaN or infinity runs again in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seesr.errors import ComputeError
from seesr.machine.device import dtype_of
from seesr.notes import Notes, add_to_all


def run_with_nan_guard(
    stage: str, networks: Sequence[nn.Module], compute: Callable[[], Tensor], notes: Iterable[Notes]
) -> Tensor:
    """The result of `compute`; if it has NaN or infinity, `compute` runs again with `networks` in float32, with a note.

    `compute` must use the dtype of the networks.

    Raises:
        ComputeError: the result in float32 has NaN or infinity too.
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
    """Converts `networks` to float32 while the block runs; converting back is exact, as their values came from it."""
    dtypes = [dtype_of(network) for network in networks]
    try:
        for network in networks:
            network.to(torch.float32)
        yield
    finally:
        restore_fully(lambda: [network.to(dtype) for network, dtype in zip(networks, dtypes, strict=True)])


def restore_fully(restore: Callable[[], object]) -> None:
    """Runs `restore`; if an exception interrupts it, such as a cancel, runs it again and then raises the exception."""
    try:
        restore()
    except BaseException:
        restore()
        raise


def _is_finite(tensor: Tensor) -> bool:
    """Checks some rows at a time: a mask of the whole tensor would take too much memory."""
    rows = max(1, (1 << 24) * tensor.shape[-2] // tensor.numel())
    return all(bool(torch.isfinite(chunk).all()) for chunk in tensor.split(rows, dim=-2))
