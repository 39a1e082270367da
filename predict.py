"""The Cog surface: translates a request to options and calls Upscaler."""

from __future__ import annotations

import tempfile
from pathlib import Path as LocalPath

from cog import BasePredictor, Input, Path

from seesr import Options, Upscaler
from seesr.images.save import save


class Predictor(BasePredictor):
    """Loads the models once, upscales a picture for each request."""

    def setup(self) -> None:
        """Loads the weights that SEESR_WEIGHTS names, or the embedded model."""
        self.upscaler = Upscaler.load()

    def predict(
        self,
        image: Path = Input(description="The picture to upscale."),
        scale: float = Input(description="Output side over input side; any number.", default=4.0, ge=1, le=8),
        steps: int = Input(description="Denoising steps: 1 is fastest, 4 adds most.", default=2, ge=1, le=4),
        prompt: str = Input(description="What is in the picture, in your words; tags are added to it.", default=""),
        tags: bool = Input(description="Let RAM name what it sees and add it to the prompt.", default=True),
        conditioning_scale: float = Input(
            description="How strongly the input steers: lower invents more.", default=1.0, ge=0, le=2
        ),
        color_fix: str = Input(
            description="How the input's colours are given back: wavelet, adain or none.",
            default="wavelet",
            choices=["wavelet", "adain", "none"],
        ),
        sharpen: float = Input(description="Unsharp mask at the end; 0 is off.", default=0.0, ge=0, le=2),
        seed: int = Input(description="Same seed, same picture; -1 draws one and reports it.", default=-1),
    ) -> Path:
        """Returns a PNG."""
        options = Options.make(
            scale=scale,
            steps=steps,
            prompt=prompt,
            tags=tags,
            conditioning_scale=conditioning_scale,
            color_fix=color_fix,
            sharpen=sharpen,
            seed=None if seed == -1 else seed,
        )
        result = self.upscaler.upscale(LocalPath(image), options)
        print(f"seed: {result.seed}\nprompt: {result.prompt}")
        target = LocalPath(tempfile.mkdtemp(prefix="seesr-")) / "upscaled.png"
        save(result.image, target, settings=result.settings())
        return Path(target)
