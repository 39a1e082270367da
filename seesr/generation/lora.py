"""Reads LoRA files: whose layers they change, in which of the formats that are in use, and whether all of it fits.

A layer is named after its path in the network, with `_` between its parts by kohya-ss/sd-scripts and LyCORIS
(`lora_unet_down_blocks_0_...`), with `.` by diffusers (`unet.down_blocks.0. ...`) and peft (`base_model.model. ...`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seesr.components import Components
from seesr.errors import WeightsError
from seesr.generation.adapters import Change, Hadamard, Kronecker, LowRank
from seesr.generation.library import ADAPTER_FILE, Library
from seesr.generation.lora_tags import LoraTag
from seesr.generation.model_file import ModelFile
from seesr.lru_cache import LRUCache
from seesr.weights.config import read_config
from seesr.weights.tensors import read_safetensors

UNET, TEXT_ENCODER = "unet", "text_encoder"
PREFIXES = {
    "lora_unet_": (UNET,),
    "unet.": (UNET,),
    "lora_te_": (TEXT_ENCODER,),
    "text_encoder.": (TEXT_ENCODER,),
    "base_model.model.": (UNET, TEXT_ENCODER),
    "": (UNET, TEXT_ENCODER),
}
"""What the names of tensors begin with, and in which networks their layers are looked for."""
ADAPTER_CONFIG = "adapter_config.json"
"""Beside `ADAPTER_FILE`."""
KEPT_FILES = 16
"""LoRA files that stay read; their tensors are mapped into memory, not copied."""
ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers writes peft's settings in a file's header."""
SHOWN_KEYS = 3
_LOW_RANK = {
    "down": r"[._]lora_down\.weight|[._]lora\.down\.weight|_lora\.down\.weight|\.lora_linear_layer\.down\.weight"
    r"|\.lora_A\.weight",
    "up": r"[._]lora_up\.weight|[._]lora\.up\.weight|_lora\.up\.weight|\.lora_linear_layer\.up\.weight|\.lora_B\.weight",
    "mid": r"\.lora_mid\.weight",
    "alpha": r"\.alpha",
}
_KINDS: dict[type[Change], dict[str, str]] = {
    LowRank: _LOW_RANK,
    Hadamard: {name: rf"\.hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    Kronecker: {name: rf"\.lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
}
_PARTS = [(re.compile(f"({ending})$"), kind, part) for kind, parts in _KINDS.items() for part, ending in parts.items()]
_REFUSED = {
    "DoRA": re.compile(r"\.dora_scale$|\.lora_magnitude_vector(\.weight)?$"),
    "GLoRA": re.compile(r"\.[ab][12]\.weight$"),
    "OFT": re.compile(r"\.oft_(blocks|diag|r)(\.weight)?$"),
    "IA3": re.compile(r"\.on_input$|\.ia3_l$"),
    "full weights": re.compile(r"\.diff(_b)?$|\.[wb]_norm$"),
    "bundled embeddings": re.compile(r"^bundle_emb\."),
}
"""Kinds that are not applied, by the ends of their tensors' names."""
_LITERAL = re.compile(r"[\w.]+")


@dataclass(frozen=True, eq=False)
class Lora:
    """The changes of a LoRA file, by the names of the layers."""

    name: str
    hash: str
    """See `ModelFile.hash`."""
    unet: Mapping[str, Change]
    text_encoder: Mapping[str, Change]


@dataclass(frozen=True, eq=False)
class WeightedLora:
    """A LoRA, and how much it counts in each network."""

    lora: Lora
    text_weight: float
    unet_weight: float


class Loras:
    """Finds and reads the LoRAs that prompts ask for; those used last stay read.

    Args:
        library: where they are.
        components: holds the `unet` and `prompt_encoder` that they change, of `checkpoint`.
    """

    def __init__(self, library: Library, components: Components, checkpoint: str) -> None:
        self.library, self.components, self.checkpoint = library, components, checkpoint
        self._read: LRUCache[Lora] = LRUCache(KEPT_FILES)

    def load(self, tags: list[LoraTag]) -> tuple[WeightedLora, ...]:
        """The LoRAs of a prompt's tags, in their order.

        Raises:
            OptionError: a name is unknown, or several files have it.
            WeightsError: a file is damaged, is of a kind that is not applied, or does not fit.
        """
        return tuple(WeightedLora(self._load(self.library.find(tag.name)), tag.text_weight, tag.unet_weight) for tag in tags)

    def _load(self, file: ModelFile) -> Lora:
        unet, text_encoder = self.components["unet"], self.components["prompt_encoder"].text_encoder
        stat = file.path.stat()
        key = file.path, stat.st_size, stat.st_mtime_ns
        return self._read.get(key, lambda: read_lora(file, unet, text_encoder, self.checkpoint))


def read_lora(file: ModelFile, unet: Any, text_encoder: nn.Module, checkpoint: str) -> Lora:
    """Reads a file, all of whose tensors must fit the networks, which stay as they are.

    Args:
        checkpoint: the name of the networks' checkpoint, for errors.

    Raises:
        WeightsError: the file is damaged, is of a kind that is not applied, or does not fit.
    """
    name, shapes = file.name, file.header.shapes
    file.require_family(unet.config.cross_attention_dim, checkpoint)
    for kind, ending in _REFUSED.items():
        if any(ending.search(key) for key in shapes):
            raise WeightsError(f"the LoRA {name} holds {kind}, which is not applied here: it would not look as it should.")
    networks: dict[str, nn.Module] = {UNET: unet, TEXT_ENCODER: text_encoder}
    layers = {network: _layers(module) for network, module in networks.items()}
    placed, unplaced = dict[tuple[str, str], dict[tuple[type[Change], str], str]](), list[str]()
    for key in shapes:
        place = _place(key, layers)
        if place is None:
            unplaced.append(key)
        else:
            network, layer, kind, part = place
            if placed.setdefault((network, layer), {}).setdefault((kind, part), key) != key:
                raise WeightsError(f"the LoRA {name} is damaged: it holds {key} twice, in two layouts; get it again.")
    if unplaced or not shapes:
        shown = ", ".join(sorted(unplaced)[:SHOWN_KEYS]) + (", ..." if len(unplaced) > SHOWN_KEYS else "")
        raise WeightsError(
            f"the LoRA {name} does not fit {checkpoint}: {len(shapes) - len(unplaced)} of its {len(shapes)} tensors "
            f"belong to a layer{f', not {shown}' if shown else ''}; it is for another checkpoint."
        )
    tensors, settings = read_safetensors(file.path), _Settings.read(file)
    changes: dict[str, dict[str, Change]] = {UNET: {}, TEXT_ENCODER: {}}
    for (network, layer), keys in placed.items():
        factors = {(kind, part): tensors[key] for (kind, part), key in keys.items()}
        weight: Any = networks[network].get_submodule(layer).weight
        scale = settings.scale(network, layer)
        changes[network][layer] = _change(factors, scale, tuple(weight.shape), f"{layer} of the LoRA {name}")
    return Lora(name, file.hash, changes[UNET], changes[TEXT_ENCODER])


def _layers(network: nn.Module) -> dict[str, str]:
    """The names of the layers that can be changed, by what they are in kohya's form.

    Not SeeSR's own image attention, which generation does not run: a LoRA for it would have no effect.
    """
    modules = [(name, module) for name, module in network.named_modules() if "image_attentions" not in name]
    names = [name for name, module in modules if isinstance(module, nn.Linear | nn.Conv2d)]
    return {_flat(name): name for name in names}


def _flat(name: str) -> str:
    """A layer's name with `_` alone, without what only some versions of libraries have in it."""
    flat = name.replace(".", "_").removeprefix("text_model_").replace("_processor_to_", "_to_")
    return f"{flat}_0" if flat.endswith("_to_out") else flat


def _place(key: str, layers: dict[str, dict[str, str]]) -> tuple[str, str, type[Change], str] | None:
    """(network, layer, kind, part) of a tensor."""
    for ending, kind, part in _PARTS:
        if not (found := ending.search(key)):
            continue
        prefix = next(prefix for prefix in PREFIXES if key.startswith(prefix))
        flat = _flat(key[len(prefix) : found.start()])
        for network in PREFIXES[prefix]:
            if flat in layers[network]:
                return network, layers[network][flat], kind, part
    return None


def _change(
    factors: dict[tuple[type[Change], str], Tensor],
    scale_of: Callable[[int], float],
    shape: tuple[int, ...],
    place: str,
) -> Change:
    """The change of one layer, whose weight has this shape.

    Args:
        scale_of: the scale for a rank, where the file has no alpha of the layer.
        place: says in errors which layer it is.

    Raises:
        WeightsError: factors lack, are of several kinds, hold NaN or infinity, or do not fit the layer.
    """
    alpha = factors.pop((LowRank, "alpha"), None)
    kinds, parts = {kind for kind, _ in factors}, {part: tensor for (_, part), tensor in factors.items()}
    try:
        (kind,) = kinds
        rank = _rank(kind, parts)
        scale = 1.0 if rank is None else scale_of(rank) if alpha is None else float(alpha) / rank
        change = kind(scale, **parts)
        # Without computing anything. Of a convolution some files have `(out, in * k * k)`.
        changed = change.to(torch.empty(0, device="meta")).delta().shape
    except (TypeError, ValueError, AssertionError, RuntimeError, IndexError, KeyError):
        given = ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in parts.items()) or "only alpha"
        raise WeightsError(f"layer {place} is damaged: it has {given}; get the file again.") from None
    if (changed[0], changed[1:].numel()) != (shape[0], math.prod(shape[1:])):
        raise WeightsError(
            f"layer {place} changes weights {tuple(changed)}, and they are {shape} here: it is for another checkpoint."
        )
    if not all(
        tensor.is_floating_point() and tensor.float().isfinite().all() for tensor in (*parts.values(), torch.tensor(scale))
    ):
        raise WeightsError(f"layer {place} is damaged: it holds NaN, infinity or whole numbers; get the file again.")
    return change


def _rank(kind: type[Change], parts: dict[str, Tensor]) -> int | None:
    """By which alpha is divided; None of a Kronecker product of two whole factors, whose scale is 1."""
    names = {LowRank: ("down",), Hadamard: ("w1_b",), Kronecker: ("w1_b", "w2_b")}[kind]
    return next((parts[name].shape[0] for name in names if name in parts), None)


@dataclass(frozen=True)
class _Settings:
    """Peft's settings of each network, from a file's header or from the file beside it."""

    by_network: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, file: ModelFile) -> _Settings:
        """Those of a file.

        Raises:
            WeightsError: they cannot be read, or say that it is no LoRA that is applied here.
        """
        by_network = dict[str, dict[str, Any]]()
        config = file.path.with_name(ADAPTER_CONFIG)
        if file.path.name == ADAPTER_FILE and config.exists():
            by_network |= dict.fromkeys([UNET, TEXT_ENCODER], read_config(config))
        elif text := file.header.metadata.get(ADAPTER_METADATA):
            try:
                for key, value in json.loads(text).items():
                    network, _, setting = key.partition(".")
                    by_network.setdefault(network, {})[setting] = value
            except (ValueError, AttributeError, RecursionError):
                raise WeightsError(f"{file.path} has {ADAPTER_METADATA} that is not JSON; get it again.") from None
        for settings in by_network.values():
            kind = str(settings.get("peft_type") or "LORA")
            if kind != "LORA" or settings.get("use_dora"):
                kind = "DoRA" if settings.get("use_dora") else kind
                raise WeightsError(
                    f"the LoRA {file.name} holds {kind} by peft, which is not applied here: it would not look as it should."
                )
        return cls(by_network)

    def scale(self, network: str, layer: str) -> Callable[[int], float]:
        """What peft multiplies a layer's change of some rank by; 1 where nothing is said.

        Raises:
            WeightsError: the settings cannot be understood.
        """
        if not (settings := self.by_network.get(network)):
            return lambda _: 1.0
        try:
            alpha = float(_of_layer(settings.get("alpha_pattern"), layer, settings["lora_alpha"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise WeightsError(f"peft's settings of a LoRA are not as peft writes them, for layer {layer}.") from None
        return lambda rank: alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _of_layer(pattern: Any, layer: str, default: Any) -> Any:
    """The value of the first pattern that names the layer, or the end of its name."""
    for key, value in (pattern or {}).items():
        if not _LITERAL.fullmatch(key):  # an expression from a stranger may take for ever
            raise ValueError(key)
        if f".{layer}".endswith(f".{key}"):
            return value
    return default
