"""The safety checker of Stable Diffusion: finds by CLIP whether a picture is near to concepts that its file names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image, ImageFilter

from seesr.debug import without_warnings
from seesr.errors import WeightsError
from seesr.weights.state_dict import load_network
from seesr.weights.tensors import StateDict

SAFETY_CHECKER_VARIABLE = "SEESR_SAFETY_CHECKER"
FILE = "model"
BLUR = 1 / 12
"""Radius of the blur as a share of the longer side."""
CONCEPTS, SPECIAL_CARE = "concept_embeds", "special_care_embeds"


class SafetyChecker:
    """Says of pictures whether they show what the file of a `safety_checker` folder names. Runs on the CPU in float32.

    Raises:
        WeightsError: the folder holds none, or files that do not fit it.
    """

    def __init__(self, folder: Path) -> None:
        with without_warnings("transformers"):
            from transformers import CLIPImageProcessor
        if not (folder / f"{FILE}.safetensors").exists():
            raise WeightsError(
                f"the safety checker {folder} has no {FILE}.safetensors, and no other file is read; get it as safetensors."
            )
        self._network: Any = load_network(folder, _build, torch.float32, _adapt_state_dict, FILE)
        self._side = self._network.config.vision_config.image_size
        with without_warnings("transformers"):  # of torchvision, which it does without
            self._processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)

    @classmethod
    def from_environment(cls, folder: str | os.PathLike[str] | None = None) -> SafetyChecker | None:
        """That of `folder`, else of `SEESR_SAFETY_CHECKER`; None without both.

        Raises:
            WeightsError: see above.
        """
        folder = folder or os.environ.get(SAFETY_CHECKER_VARIABLE) or None
        return None if folder is None else cls(Path(folder))

    def flags(self, image: Image.Image) -> bool:
        """Whether an RGB picture shows such a thing. It is looked at whole: a wide or tall one is squeezed to a square."""
        square = image.resize((self._side, self._side), Image.Resampling.BICUBIC)
        inputs = self._processor(images=square, return_tensors="pt")
        # It blackens what it is given beside the input; and says so.
        with torch.inference_mode(), without_warnings("diffusers"):
            _, (found,) = self._network(clip_input=inputs.pixel_values, images=np.zeros((1, 1)))
        return found


def blurred(image: Image.Image) -> Image.Image:
    """The picture, so that nothing can be recognised."""
    return image.filter(ImageFilter.GaussianBlur(max(1.0, max(image.size) * BLUR)))


def _build(config: dict[str, Any]) -> Any:
    with without_warnings("transformers"):
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers import CLIPConfig

    with init_empty_weights():
        return StableDiffusionSafetyChecker(CLIPConfig.from_dict(config)).eval()


def _adapt_state_dict(state_dict: StateDict) -> StateDict:
    """Accepts the names of transformers before and after 5; `position_ids`, which old versions saved, are computed."""
    return {
        key.replace("vision_model.vision_model.", "vision_model."): tensor
        for key, tensor in state_dict.items()
        if not key.endswith("position_ids")
    }
