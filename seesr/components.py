"""Named networks of one checkpoint: how each is read, where it is, and how it gets to the device while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seesr.kernels.denoiser_attention import set_attention_processor
from seesr.kernels.winograd import use_winograd
from seesr.machine.allocator import trim_heap
from seesr.machine.device import CPU, dtype_of, supported_dtype, to_device
from seesr.machine.memory import release_memory
from seesr.planning.nan_guard import in_float32, restore_fully
from seesr.planning.plan import MemoryPlan


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a task: its name, how it is read, and what is best for it."""

    name: str
    load: Callable[[], nn.Module]
    """Reads it, with its weights on the CPU."""
    contiguous_on_cuda: bool = False
    """Whether its convolutions are faster there in PyTorch's own layout than channels last."""
    compiled_on_cpu: bool = False
    compiled_on_gpu: bool = False
    """Whether compiling its blocks pays there."""
    has_denoiser_attention: bool = False
    """Whether its attention is computed by xformers where that runs."""


class Components:
    """The networks of `specs`, loaded; with `sequential` only what runs is on the device, on a CPU in memory.

    Raises:
        WeightsError: files are missing or do not fit.
        OptionError: blocks are to be compiled, and there is no compiler.
    """

    def __init__(
        self, specs: Iterable[NetworkSpec], device: torch.device, sequential: bool = False, compiled: bool = False
    ) -> None:
        self.device, self.sequential, self.compiled = device, sequential, compiled
        self.networks: dict[str, nn.Module] = {}
        self._specs = {spec.name: spec for spec in specs}
        self._home = CPU
        """Where the networks are that do not run."""
        self._plan: MemoryPlan | None = None
        self._running: set[str] = set()
        self._attention_for = CPU
        if compiled:
            # Imported here: it takes as long as everything else together.
            from seesr.kernels.compile import require_compiler

            require_compiler(device)
        self._extras: set[str] = set()
        for spec in self._specs.values():
            self._load(spec)

    def __getitem__(self, name: str) -> Any:
        """The network of this name; of which class it is, its spec says."""
        if not self.networks:
            raise RuntimeError("the networks were unloaded; load them again")
        return self.networks[name]

    def __contains__(self, name: str) -> bool:
        return name in self.networks

    def unload(self) -> None:
        """Lets go of the weights, whoever else holds the networks, which cannot be used afterwards."""
        for network in self.networks.values():
            offload_to_meta(network)
        self.networks.clear()
        self._extras.clear()
        release_memory(self.device)

    def exchange_extras(self, specs: Iterable[NetworkSpec]) -> None:
        """Holds these networks beside its own, in place of those of the call before; what has the same name stays.

        New ones wait on the CPU, as then do all others: the next plan moves them together.

        Raises:
            WeightsError: files are missing or do not fit; those that were read before it are held.
        """
        wanted = {spec.name: spec for spec in specs}
        unwanted = self._extras - wanted.keys()
        for name in unwanted:
            offload_to_meta(self.networks.pop(name))
            del self._specs[name]
        if unwanted:
            self._extras -= unwanted
            release_memory(self.device)
        for spec in (spec for name, spec in wanted.items() if name not in self.networks):
            self._move(CPU)
            self._load(spec)
            self._specs[spec.name] = spec
            self._extras.add(spec.name)
            if spec.has_denoiser_attention and self._attention_for != CPU:
                set_attention_processor(self.networks[spec.name], self._attention_for)

    @property
    def extras(self) -> frozenset[str]:
        """The names of the networks that `exchange_extras` added."""
        return frozenset(self._extras)

    def nbytes(self, *names: str) -> int:
        """Bytes of the weights of these networks, wherever they are."""
        return sum(weight.nbytes for name in names for weight in self.networks[name].parameters())

    @property
    def runs_on(self) -> torch.device:
        """Where networks compute at this moment."""
        return (self._plan or self).device

    @property
    def plan_name(self) -> str | None:
        """Of the memory plan on which a job runs at this moment."""
        return self._plan and self._plan.name

    @contextmanager
    def checked(self, networks: Iterable[nn.Module], check: Callable[[], None]) -> Iterator[None]:
        """Calls `check` before each convolution of these networks: what it raises ends a job within a call of one."""
        networks = list(networks)
        # What is compiled is not touched, or it would be compiled anew for each job.
        inner = () if self.compiled else [module for network in networks for module in network.modules()]
        modules = [*networks, *(module for module in inner if isinstance(module, nn.Conv2d))]
        handles = [module.register_forward_pre_hook(lambda *_: check()) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def _waits_in_file(self) -> bool:
        return self.sequential and self.device == CPU

    @contextmanager
    def on(self, plan: MemoryPlan) -> Iterator[None]:
        """The networks where `plan` wants them, to stay there until another plan wants otherwise.

        On a CPU not in float16, and where they were compiled for another device not compiled again.
        """
        self._move(CPU if plan.sequential else plan.device)
        if self._attention_for != plan.device:
            for spec in self._specs.values():
                if spec.has_denoiser_attention:
                    set_attention_processor(self.networks[spec.name], plan.device)
            self._attention_for = plan.device
        halves = [one for one in self.networks.values() if supported_dtype(plan.device, dtype_of(one)) != dtype_of(one)]
        eager = self.compiled and plan.device != self.device
        self._plan = plan
        try:
            with in_float32(halves), torch.compiler.set_stance("force_eager") if eager else nullcontext():
                yield
        finally:
            self._plan = None

    @contextmanager
    def running(self, *names: str) -> Iterator[None]:
        """These networks on the device, together; those that were not there, for as long as they run."""
        device, in_file = self.runs_on, self._waits_in_file
        if self._running.issuperset(names) or (self._home == device and not in_file):
            yield
            return
        networks, before = [self.networks[name] for name in names], self._running
        self._running = set(names)
        try:
            for name in names:
                if in_file:
                    self._read(name)
                else:
                    self.networks[name].to(device)
            yield
        finally:
            self._running = before
            restore_fully(lambda: [offload_to_meta(one) if in_file else one.to(self._home) for one in networks])

    def _load(self, spec: NetworkSpec) -> None:
        """Reads a network, which is then on the CPU, or waits in its file."""
        network = spec.load()
        use_winograd(network)
        if self._waits_in_file:
            offload_to_meta(network)
        else:
            # On an H200 the VAE took 0.92 s channels last, 0.64 s contiguous (docs/speed.md).
            contiguous = spec.contiguous_on_cuda and self.device.type == "cuda"
            to_device(network, CPU, torch.contiguous_format if contiguous else torch.channels_last)
        if self.compiled and (spec.compiled_on_cpu if self.device == CPU else spec.compiled_on_gpu):
            from seesr.kernels.compile import compile_blocks

            compile_blocks(network)
        self.networks[spec.name] = network

    def _read(self, name: str) -> None:
        """Takes the weights from their file; a plan may have changed the precision of what was not there."""
        network = self.networks[name]
        dtype = dtype_of(network)
        reload_weights(network, self._specs[name].load())
        if dtype_of(network) != dtype:
            network.to(dtype)
        to_device(network, CPU)

    def _move(self, device: torch.device) -> None:
        """Half a move is none, whether memory ran out or somebody cancelled: all networks are where `_home` says."""
        if self._home == device:
            return
        try:
            for network in self.networks.values():
                network.to(device)
        except BaseException:
            restore_fully(lambda: [network.to(self._home) for network in self.networks.values()])
            raise
        self._home = device


def offload_to_meta(network: nn.Module) -> None:
    """Lets go of the weights, of which only shapes stay."""
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(weight.to("meta"), requires_grad=False))
    trim_heap()


def reload_weights(network: nn.Module, source: nn.Module) -> None:
    """Gives `network` the weights of `source`, which is built alike."""
    for module, other in zip(network.modules(), source.modules(), strict=True):
        for name, weight in other.named_parameters(recurse=False):
            setattr(module, name, weight)
