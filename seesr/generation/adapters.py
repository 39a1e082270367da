"""Adapters: small changes of layers' weights, added to what the layers return while a block runs.

A network keeps its layers and its weights, so after the block it is what it was, bit for bit, and to begin and to end takes
milliseconds, where peft takes a second or two to exchange the layers of SD 1.5's UNet and back.

Kinds: LoRA (Hu et al., ICLR 2022), for convolutions and in Tucker's form too; LoHa, the Hadamard product of two such changes
(Hyeon-Woo et al., ICLR 2022), and LoKr, a Kronecker product, both as LyCORIS (Yeh et al., ICLR 2024) defines them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True, eq=False)
class Change(ABC):
    """What is added to a layer's weight: `scale` times `delta()`."""

    scale: float

    @abstractmethod
    def delta(self) -> Tensor:
        """Of the shape of the weight: `(out, in)`, or of a convolution `(out, in, k, k)` or `(out, in * k * k)`."""

    def output(self, layer: Layer, x: Tensor) -> Tensor:
        """What `delta()` adds to the layer's output for the input `x`, without `scale`."""
        return _apply(layer, x, self.delta())

    def to(self, like: Tensor) -> Self:
        """On the device and in the dtype of `like`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(like) for name, value in values.items() if isinstance(value, Tensor)})


@dataclass(frozen=True, eq=False)
class LowRank(Change):
    """LoRA: `up @ down`, or of a convolution in Tucker's form `up`, `mid` and `down` one after the other."""

    down: Tensor
    """`(r, in)`, or `(r, in, k, k)`."""
    up: Tensor
    """`(out, r)`."""
    mid: Tensor | None = None
    """`(r, r, k, k)`; `down` is then `(r, in)`."""

    def delta(self) -> Tensor:
        up, down = self.up.flatten(1), self.down
        if self.mid is not None:
            return _tucker(self.mid, up.T, down.flatten(1))
        return (up @ down.flatten(1)).unflatten(1, down.shape[1:])

    def output(self, layer: Layer, x: Tensor) -> Tensor:
        if self.mid is not None:
            return super().output(layer, x)
        # Never as large as the weight: through `r` channels.
        reduced = _apply(layer, x, self.down)
        up = self.up.flatten(1)
        return F.linear(reduced, up) if isinstance(layer, nn.Linear) else F.conv2d(reduced, up[..., None, None])


@dataclass(frozen=True, eq=False)
class Hadamard(Change):
    """LoHa: `(w1_a @ w1_b) * (w2_a @ w2_b)`, or of a convolution in Tucker's form with `t1` and `t2`."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor | None = None
    t2: Tensor | None = None

    def delta(self) -> Tensor:
        return _factored(self.w1_a, self.w1_b, self.t1) * _factored(self.w2_a, self.w2_b, self.t2)


@dataclass(frozen=True, eq=False)
class Kronecker(Change):
    """LoKr: the Kronecker product of `w1` and `w2`, each whole or a product of two factors."""

    w1: Tensor | None = None
    w1_a: Tensor | None = None
    w1_b: Tensor | None = None
    w2: Tensor | None = None
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None
    t2: Tensor | None = None

    def delta(self) -> Tensor:
        first = _factored(self.w1_a, self.w1_b) if self.w1 is None else self.w1
        second = _factored(self.w2_a, self.w2_b, self.t2) if self.w2 is None else self.w2
        return torch.kron(first.reshape(*first.shape[:2], *[1] * (second.dim() - 2)), second.contiguous())


@contextmanager
def adapted(network: nn.Module, changes: Sequence[tuple[Mapping[str, Change], float]]) -> Iterator[None]:
    """`network` with its layers changed, by name, while the block runs: each set of changes times its weight.

    Nothing that was compiled may run meanwhile, as compiled code does not see it.
    """
    with ExitStack() as stack:
        for by_layer, weight in changes:
            for name, change in by_layer.items() if weight else ():
                layer: Any = network.get_submodule(name)
                hook = _adding(change.to(layer.weight), weight * change.scale)
                stack.callback(layer.register_forward_hook(hook).remove)
        yield


def _adding(change: Change, scale: float) -> Callable[[Any, tuple[Tensor], Tensor], Tensor]:
    def add(layer: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        # The network may run again in float32 (`run_with_nan_guard`).
        return torch.add(output, change.to(inputs[0]).output(layer, inputs[0]), alpha=scale)

    return add


def _apply(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    """The layer with another weight, which may have other output channels, and without bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight.flatten(1))
    weight = weight.reshape(len(weight), -1, *layer.kernel_size)
    return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation)


def _factored(a: Tensor | None, b: Tensor | None, core: Tensor | None = None) -> Tensor:
    """`(out, r) @ (r, in)`, `b` may be a convolution's; with a core `(r, r, k, k)` they are `(r, out)`, `(r, in)`."""
    assert a is not None
    assert b is not None
    return (a @ b.flatten(1)).unflatten(1, b.shape[1:]) if core is None else _tucker(core, a, b)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`(out, in, k, k)` of a core `(r, r, k, k)` and factors `(r, out)` and `(r, in)`."""
    return torch.einsum("ijkl,io,jn->onkl", core, a, b)
