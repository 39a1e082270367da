"""What a ControlNet is steered by, made of a picture: its edges, or its depth."""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image

from seesr.debug import without_progress_bars, without_warnings
from seesr.errors import OptionError, WeightsError, first_line
from seesr.generation.controls import Preprocessor
from seesr.generation.library import FolderLibrary, ModelPlace, require_no_code, require_safetensors
from seesr.weights.config import read_config

DEPTH_MODELS = ("depth_anything", "dpt")
"""Kinds that give inverse depth, as ControlNets were trained with; others give distances."""


def control_map(picture: Image.Image, preprocessor: Preprocessor, depth_models: FolderLibrary) -> Image.Image:
    """The map of an RGB picture, RGB and of its size.

    Raises:
        OptionError: there is no depth model, or there are several.
        WeightsError: the depth model cannot be used.
    """
    if preprocessor == "canny":
        return canny(picture)
    return depth_map(picture, _only(depth_models)) if preprocessor == "depth" else picture


def canny(picture: Image.Image) -> Image.Image:
    """Edges (Canny, PAMI 1986), white on black; sigma 1, thresholds 0.1 and 0.2 of the largest value of a pixel."""
    from skimage import feature

    edges = feature.canny(
        np.asarray(picture.convert("L"), dtype=np.float32) / 255, sigma=1, low_threshold=0.1, high_threshold=0.2
    )
    return Image.fromarray(edges).convert("RGB")


def depth_map(picture: Image.Image, folder: ModelPlace) -> Image.Image:
    """Inverse depth by a model of transformers, the nearest white and the farthest black; computed on the CPU.

    Raises:
        WeightsError: the folder holds code, no safetensors, a model of another kind, or cannot be read.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    _check_depth_model(folder)
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with without_warnings("transformers"), without_progress_bars(), warnings.catch_warnings(action="ignore"):
            processor = AutoImageProcessor.from_pretrained(folder.path, backend="pil", **local)
            model, info = AutoModelForDepthEstimation.from_pretrained(
                folder.path, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
            )
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"the depth model {folder.name} cannot be read: {first_line(error)}; get it again.") from error
    if missing := sorted(info["missing_keys"]):
        raise WeightsError(f"the depth model {folder.name} lacks {len(missing)} tensors, {missing[0]} first; get it again.")
    with torch.inference_mode():
        inputs = processor(images=picture, return_tensors="pt")
        predicted = model.eval()(**inputs).predicted_depth[:, None]
        size = picture.height, picture.width
        values = torch.nn.functional.interpolate(predicted, size, mode="bicubic", align_corners=False)[0, 0]
    values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-6)
    return Image.fromarray((values * 255).round().byte().numpy()).convert("RGB")


def _only(library: FolderLibrary) -> ModelPlace:
    folders, place = library.models(), f"models/{library.folders[0].name}"
    if not folders:
        raise OptionError(
            f"there is no depth model: put one of transformers, such as Depth Anything, in a folder of {place}."
        )
    if len(folders) > 1:
        raise OptionError(f"{place} has several depth models: {', '.join(folder.name for folder in folders)}; keep one.")
    return folders[0]


def _check_depth_model(folder: ModelPlace) -> None:
    config = read_config(folder.path / "config.json")
    kind, estimates = config.get("model_type"), config.get("depth_estimation_type", "relative")
    if kind not in DEPTH_MODELS or estimates != "relative":
        raise WeightsError(
            f"the depth model {folder.name} is {kind} ({estimates}); only {' and '.join(DEPTH_MODELS)}, relative, are used."
        )
    require_no_code(folder.path, f"the depth model {folder.name}")
    require_safetensors(folder.path, f"the depth model {folder.name}")
