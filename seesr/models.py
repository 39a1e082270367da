"""The networks of one weights folder, and on which device they are at each moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from seesr.autoencoder.estimated import receptive_field
from seesr.autoencoder.lean import make_lean
from seesr.autoencoder.statistics import make_precise
from seesr.autoencoder.vae import attention_width, largest_exact, load_vae, scale_factor
from seesr.cleaner import Cleaner, load_cleaner
from seesr.diffusion.denoiser import Denoiser, load_denoiser
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import PromptEncoder, load_prompt_encoder
from seesr.images.resize import Needs
from seesr.runtime.attention import choose_attention
from seesr.runtime.convolution import make_fast
from seesr.runtime.device import CPU, dtype_on, place
from seesr.runtime.guard import in_float32, to_the_end
from seesr.runtime.memory import trim
from seesr.runtime.plan import Costs, Rung
from seesr.tagging.prompt import TagList, load_tag_list
from seesr.tagging.ram import RAM, load_ram
from seesr.weights.files import read_config
from seesr.weights.resolve import CLEANER, Weights


@dataclass(eq=False)
class Models:
    """Everything that is loaded once."""

    vae: AutoencoderKL
    denoiser: Denoiser
    prompt_encoder: PromptEncoder
    ram: RAM
    tag_list: TagList
    schedule: NoiseSchedule
    cleaner: Cleaner | None
    """The published model has none."""
    device: torch.device
    margin: int
    """Latents that these weights want around a picture."""
    sequential: bool
    """Only the running network is on `device`, the others wait on the CPU; on a CPU, in their files."""
    compiled: bool = False
    _loaders: dict[nn.Module, Callable[[], nn.Module]] = field(default_factory=dict)
    """What reads those networks again that wait in their files."""
    _rung: Rung | None = None
    _at: torch.device = CPU
    """Where the networks are that do not run."""
    _attention_for: torch.device = CPU
    _running: nn.Module | None = None

    @classmethod
    def load(
        cls, weights: Weights, device: torch.device, dtype: torch.dtype, sequential: bool = False, compiled: bool = False
    ) -> Models:
        """Of a weights folder.

        Raises:
            WeightsError: files are missing or do not fit.
            OptionError: blocks shall be compiled, and there is no compiler.
        """
        if compiled:
            # Imported here: it takes as long as everything else together.
            from seesr.runtime.compile import compile_blocks, require_compiler

            require_compiler(device)
        base = weights.root / "sd-turbo"
        # A VAE that says so overflows in float16.
        upcast = dtype == torch.float16 and read_config(base / "vae" / "config.json").get("force_upcast", False)
        loaders: dict[str, Callable[[], nn.Module]] = {
            # First, while there is room: its file stays mapped until DAPE is merged.
            "ram": lambda: load_ram(weights.root / "ram", dtype=dtype),
            "vae": lambda: _load_lean_vae(base / "vae", torch.float32 if upcast else dtype),
            "denoiser": lambda: load_denoiser(weights.root, dtype),
            "prompt_encoder": lambda: load_prompt_encoder(base, dtype),
        }
        if (cleaner := weights.root / CLEANER).is_dir():
            loaders["cleaner"] = lambda: load_cleaner(cleaner, dtype)
        networks, reloaders = {"cleaner": None}, {}
        for name, loader in loaders.items():
            networks[name] = loader()
            make_fast(networks[name])
            if sequential and device == CPU:
                leave_weights(networks[name])
                reloaders[networks[name]] = loader
            else:
                # Channels last it took 0.92 s on an H200, where the stock one, contiguous, took 0.64 (docs/speed.md).
                contiguous = name == "vae" and device.type == "cuda"
                place(networks[name], CPU, torch.contiguous_format if contiguous else torch.channels_last)
        models = cls(
            **networks,
            tag_list=load_tag_list(weights.root / "ram", networks["ram"].config.num_tags),
            schedule=NoiseSchedule.from_config(read_config(base / "scheduler" / "scheduler_config.json")),
            device=device,
            margin=weights.wishes.margin,
            sequential=sequential,
            compiled=compiled,
            _loaders=reloaders,
        )
        if compiled:
            compile_blocks(models.denoiser)
            if device != CPU:
                # There, in bfloat16, its blocks take three times as long when they are compiled (docs/speed.md).
                compile_blocks(models.vae)
        return models

    @property
    def networks(self) -> list[nn.Module]:
        networks = [self.vae, self.denoiser, self.prompt_encoder, self.ram]
        return networks if self.cleaner is None else [*networks, self.cleaner]

    @property
    def factor(self) -> int:
        """Pixels a side for each latent."""
        return scale_factor(self.vae)

    @property
    def runs_on(self) -> torch.device:
        """Where the networks compute at this moment."""
        return (self._rung or self).device

    @property
    def needs(self) -> Needs:
        """What these models ask of a picture's size."""
        return Needs(self.denoiser.unet.config.sample_size * self.factor, self.factor, self.margin * self.factor)

    @property
    def costs(self) -> Costs:
        widths = self.vae.config.block_out_channels
        sizes = [sum(tensor.nbytes for tensor in network.parameters()) for network in self.networks]
        return Costs(
            vae_channels=max(widths[:2]),
            unet_channels=self.denoiser.unet.config.block_out_channels[0],
            factor=self.factor,
            itemsize=dtype_of(self.vae).itemsize,
            weights=sum(sizes),
            largest=max(sizes),
            vae_halo=receptive_field(self.vae),
            vae_exact=largest_exact(self.vae),
            latent_channels=self.vae.config.latent_channels,
            vae_attention=attention_width(self.vae),
        )

    @contextmanager
    def on(self, rung: Rung) -> Iterator[None]:
        """The networks where the rung wants them, to stay there until another wants otherwise.

        On a CPU not in float16, and where they were compiled for another device not compiled again.
        """
        self._move(CPU if rung.sequential else rung.device)
        if self._attention_for != rung.device:
            choose_attention(self.denoiser, rung.device)
            self._attention_for = rung.device
        halves = [one for one in self.networks if dtype_on(rung.device, dtype_of(one)) != dtype_of(one)]
        eager = self.compiled and rung.device != self.device
        self._rung = rung
        try:
            with in_float32(halves), torch.compiler.set_stance("force_eager") if eager else nullcontext():
                yield
        finally:
            self._rung = None

    @contextmanager
    def running(self, network: nn.Module) -> Iterator[None]:
        """`network` on the device; if it was not there, for as long as it runs."""
        device, in_file = self.runs_on, network in self._loaders
        if network is self._running or (self._at == device and not in_file):
            yield
            return
        self._running = network
        try:
            if in_file:
                self._read(network)
            else:
                network.to(device)
            yield
        finally:
            self._running = None
            to_the_end(lambda: leave_weights(network) if in_file else network.to(self._at))

    def _read(self, network: nn.Module) -> None:
        """Takes the weights from their file; a rung may have changed the precision of what was not there."""
        dtype = dtype_of(network)
        take_weights(network, self._loaders[network]())
        if dtype_of(network) != dtype:
            network.to(dtype)
        place(network, CPU)

    def _move(self, device: torch.device) -> None:
        """Half a move is none, whether memory ran out or somebody cancelled: all networks are where `_at` says."""
        if self._at == device:
            return
        try:
            for network in self.networks:
                network.to(device)
        except BaseException:
            to_the_end(lambda: [network.to(self._at) for network in self.networks])
            raise
        self._at = device


def _load_lean_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    vae = load_vae(folder, dtype)
    make_precise(vae)
    make_lean(vae)
    return vae


def leave_weights(network: nn.Module) -> None:
    """Lets go of the weights, of which only shapes stay."""
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(weight.to("meta"), requires_grad=False))
    trim()


def take_weights(network: nn.Module, other: nn.Module) -> None:
    """Gives `network` the weights of `other`, which is built alike."""
    for module, source in zip(network.modules(), other.modules(), strict=True):
        for name, weight in source.named_parameters(recurse=False):
            setattr(module, name, weight)


def dtype_of(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


def like(tensor: Tensor, network: nn.Module) -> Tensor:
    """`tensor` where and in which precision `network` takes it."""
    weight = next(network.parameters())
    return tensor.to(weight.device, weight.dtype)
