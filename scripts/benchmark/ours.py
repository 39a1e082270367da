"""The product as it is, timed from outside."""

from __future__ import annotations

import time
from unittest.mock import patch

from PIL import Image

from seesr import Options, Upscaler
from seesr.images.sizes import Sizes
from seesr.stages import Stages


class Ours:
    """Upscales a picture of noise with nothing remembered of others."""

    def __init__(self, upscaler: Upscaler, options: Options) -> None:
        self.upscaler, self.options = upscaler, options

    def __call__(self, sizes: Sizes, stages: Stages) -> str:
        self.upscaler.clear_caches()
        picture = Image.effect_noise(sizes.input, 64).convert("RGB")
        began = time.perf_counter()
        with patch.object(self.upscaler.engine, "stages", lambda: stages):
            result = self.upscaler.upscale(picture, self.options)
        stages.seconds["rest"] = time.perf_counter() - began - sum(stages.seconds.values())
        failed = [f"{attempt.rung} having run out of memory" for attempt in result.attempts]
        return ", ".join([result.rung, *failed, *result.notes])
