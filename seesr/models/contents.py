"""What a file or folder of models is, by its content: its kind, its family, and why it cannot be used where it cannot.

Only headers and configs are read; nothing is unpickled, and PyTorch is not imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from seesr.errors import WeightsError
from seesr.generation.library import require_no_code, require_safetensors
from seesr.generation.model_file import EMBEDDING_KEY, WIDTHS, ModelFile
from seesr.generation.tensor_names import CLIP, OPEN_CLIP, OTHER_FAMILIES, UNET, VAE
from seesr.weights.config import read_config
from seesr.weights.header import Header, read_header

Kind = Literal["checkpoints", "loras", "vae", "controlnet", "embeddings"]
"""A folder in `models/`, and what is in it."""
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES: dict[Kind, str] = {
    "checkpoints": "checkpoint",
    "loras": "LoRA",
    "vae": "VAE",
    "controlnet": "ControlNet",
    "embeddings": "embedding",
}
"""What one of each kind is called."""
USABLE = ("SD 1", "SD 2")
LEGACY_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
"""Of PyTorch's pickles, which are listed and never read."""
_CLASSES: dict[str, Kind] = {"AutoencoderKL": "vae", "ControlNetModel": "controlnet"}
_LORA = re.compile(r"[._]lora[._]|lora_(down|up|A|B)\.|\.lora_linear_layer\.|\.hada_w|\.lokr_w")
_CONTROLNET = ("control_model.", "controlnet_cond_embedding.", "input_hint_block.")
_UNET_ALONE = ("double_blocks.", "joint_blocks.", "input_blocks.", "down_blocks.")
_NETWORKS = ("unet", "vae", "text_encoder")


@dataclass(frozen=True)
class Contents:
    """What a model is."""

    kind: Kind | None
    """None of what is no model that SeeSR knows."""
    base: str | None = None
    """Its family, or that of the checkpoints that it is for: `SD 1`, `SD 2`, `SDXL`."""
    problem: str | None = None
    """Why it cannot be used, in a few words."""


def inspect(path: Path, shown: str = "") -> Contents:
    """What a file or folder is; of one that is damaged or dangerous, the problem says so.

    Args:
        shown: what messages call it; without it, its name.
    """
    shown = shown or path.name
    try:
        if path.is_dir():
            return _inspect_folder(path, shown)
        return _inspect_file(path, read_header(path))
    except WeightsError as error:
        return Contents(None, problem=str(error).replace(str(path), shown).rstrip("."))


def require_model(path: Path, kind: Kind | None, shown: str) -> Kind:
    """The kind of a file or folder, which messages call `shown`; it must be `kind` if that is given.

    Raises:
        WeightsError: it is damaged, dangerous, cannot be used, or is of another kind.
    """
    contents = inspect(path, shown)
    if contents.problem or contents.kind is None:
        danger = "" if path.is_dir() or _is_safetensors(path) else "; a file of another kind may run code when it is read"
        raise WeightsError(f"{shown} is refused: {contents.problem or 'it is no model of a kind that is used'}{danger}.")
    if kind is not None and kind != contents.kind:
        raise WeightsError(f"{shown} is a {NAMES[contents.kind]}, not a {NAMES[kind]}.")
    return contents.kind


def _is_safetensors(path: Path) -> bool:
    try:
        read_header(path)
    except WeightsError:
        return False
    return True


def _inspect_file(path: Path, header: Header) -> Contents:
    names, file = header.shapes, ModelFile(path.stem, path)

    def has(*starts: str) -> bool:
        return any(name.startswith(starts) for name in names)

    if other := next((family for family, start in OTHER_FAMILIES.items() if has(start)), None):
        return _of_family("checkpoints", other)
    if has(UNET):
        text = "SD 2" if has(OPEN_CLIP) else "SD 1" if has(CLIP) else None
        return Contents("checkpoints", text, None if text else "it holds no text encoder")
    if has(*_CONTROLNET):
        return Contents("controlnet", problem="a ControlNet of one file is not read; get it as a folder of diffusers")
    if any(_LORA.search(name) for name in names):
        return _of_family("loras", file.base_model)
    if has(VAE) or {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= names.keys():
        return Contents("vae")
    if EMBEDDING_KEY in names or names.keys() == {"clip_l", "clip_g"} or (len(names) == 1 and len(file_shape(header)) <= 2):
        return _of_family("embeddings", file.base_model)
    if has(*_UNET_ALONE):
        return Contents("checkpoints", problem="it holds a UNet alone; get the whole checkpoint")
    return Contents(None, problem="it holds no network that SeeSR knows")


def file_shape(header: Header) -> tuple[int, ...]:
    """The shape of the first tensor."""
    return next(iter(header.shapes.values()))


def _inspect_folder(path: Path, shown: str) -> Contents:
    require_no_code(path, shown)
    if (path / "model_index.json").exists() or (path / "unet").is_dir():
        for name in _NETWORKS:
            require_safetensors(path / name, f"{shown}/{name}")
            for file in (path / name).glob("*.safetensors"):
                read_header(file)
        return _of_family("checkpoints", _width_of(path / "unet" / "config.json"))
    found = read_config(path / "config.json").get("_class_name")
    kind = _CLASSES.get(found) if isinstance(found, str) else None
    if kind is None:
        return Contents(None, problem=f"its config names {found if isinstance(found, str) else 'no class'}")
    require_safetensors(path, shown)
    for file in path.glob("*.safetensors"):
        read_header(file)
    return Contents(kind) if kind == "vae" else _of_family(kind, _width_of(path / "config.json"))


def _width_of(config: Path) -> str | None:
    width = read_config(config).get("cross_attention_dim")
    return WIDTHS.get(width) if isinstance(width, int) else None


def _of_family(kind: Kind, base: str | None) -> Contents:
    """SeeSR uses SD 1 and SD 2; of what does not say what it is for, the load finds out."""
    is_usable = base is None or base in USABLE
    return Contents(kind, base, None if is_usable else f"it is of {base}; only {' and '.join(USABLE)} can be used")
