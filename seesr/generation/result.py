"""What a generated picture is returned with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seesr.generation.infotext import Infotext
from seesr.generation.options import GenerationOptions
from seesr.images.sizes import Size
from seesr.options import SaveOptions
from seesr.result import Result
from seesr.version import __version__

if TYPE_CHECKING:
    from seesr.generation.vaes import VAESource


@dataclass(frozen=True, eq=False, kw_only=True)
class GenerationResult(Result[GenerationOptions]):
    """A generated picture."""

    negative_prompt: str
    variation_seed: int | None
    sampler: str
    schedule: str
    steps: int
    """Steps that were asked for; the UNet ran more often or less, as the sampler and the strength say."""
    guidance_scale: float
    task: str
    """`text to image`, `image to image` or `inpainting`."""
    size: Size
    """Width and height before a second pass or `upscale` enlarged it."""
    loras: dict[str, str] = field(default_factory=dict)
    """Names of the LoRAs, and digits of their digests (`ModelFile.hash`)."""
    embeddings: dict[str, str] = field(default_factory=dict)
    """Names of the embeddings, and digits of their digests (`ModelFile.file_hash`)."""
    vae_source: VAESource | None = None
    """The VAE in place of the checkpoint's own."""
    prediction_type: str | None = None
    """`epsilon` or `v_prediction`, where the user set it."""
    controls: list[dict[str, str | float]] = field(default_factory=list)
    """The units of ControlNet (`Control.settings`), without their pictures."""
    nsfw_content_detected: bool | None = None
    """Whether the safety checker flagged it, so that it is blurred; None where it was not checked."""

    def _written(self, options: SaveOptions) -> tuple[dict[str, Any] | None, str | None]:
        """Nothing where `options` exclude metadata: of a generated picture the settings are all there is."""
        return super()._written(options) if options.metadata else (None, None)

    def settings(self) -> dict[str, Any]:
        """All that made the picture: with the same input it is made again."""
        # The size of other tasks follows from their input.
        size = {"width": self.size[0], "height": self.size[1]} if self.task == "text to image" else {}
        source = self.vae_source
        replaced = {"vae_name": source.name, "vae_digest": source.digest} if source else {}
        replaced |= {"prediction_type": self.prediction_type} if self.prediction_type else {}
        return (
            super().settings()
            | size
            | replaced
            | {
                "task": self.task,
                "negative_prompt": self.negative_prompt,
                "variation_seed": self.variation_seed,
                "sampler": self.sampler,
                "schedule": self.schedule,
                "steps": self.steps,
                "guidance_scale": self.guidance_scale,
                "loras": self.loras,
                "embeddings": self.embeddings,
                "controls": self.controls,
                "nsfw_content_detected": self.nsfw_content_detected,
            }
        )

    def record(self) -> dict[str, Any]:
        """`Result.record` with what `settings` has beside it."""
        return super().record() | {
            "steps": self.steps,
            "sampler": self.sampler,
            "width": self.image.width,
            "height": self.image.height,
            "nsfw_content_detected": self.nsfw_content_detected,
        }

    def infotext(self) -> str | None:
        """The settings in A1111's keys and their order."""
        options = self.options
        values: dict[str, object] = {
            "Steps": self.steps,
            "Sampler": self.sampler,
            "Schedule type": self.schedule,
            "CFG scale": f"{self.guidance_scale:g}",
            "Seed": self.seed,
            "Size": f"{self.size[0]}x{self.size[1]}",
            "Model hash": self.weights_digest,
            "Model": self.weights,
        }
        if self.vae_source is not None:
            values |= {"VAE hash": self.vae_source.digest, "VAE": self.vae_source.name}
        if options.variation_strength:
            values |= {"Variation seed": self.variation_seed, "Variation seed strength": f"{options.variation_strength:g}"}
        if self.task != "text to image":
            values["Denoising strength"] = f"{options.strength:g}"
        if options.clip_skip > 1:
            values["Clip skip"] = options.clip_skip
        values["RNG"] = "CPU"
        if options.second_pass:
            values |= {
                "Denoising strength": f"{options.second_pass_strength:g}",
                "Hires upscale": f"{options.second_pass:g}",
                "Hires upscaler": options.second_pass_upscaler,
            }
            if options.second_pass_steps:
                values["Hires steps"] = options.second_pass_steps
        if self.task == "inpainting":
            values["Mask blur"] = f"{options.mask_blur:g}"
            if options.mask_invert:
                values["Mask mode"] = "Inpaint not masked"
            if options.inpaint_area == "masked":
                values |= {"Inpaint area": "Only masked", "Masked area padding": options.inpaint_padding}
            if options.inpaint_fill != "original":
                values["Masked content"] = options.inpaint_fill
        for number, unit in enumerate(self.controls):
            # As the extension sd-webui-controlnet writes a unit.
            values[f"ControlNet {number}"] = ", ".join(
                (
                    f"Module: {unit['preprocessor']}",
                    f"Model: {_bare(str(unit['name']))} [{unit['digest']}]",
                    f"Weight: {unit['weight']}",
                    f"Guidance Start: {unit['start']}",
                    f"Guidance End: {unit['end']}",
                )
            )
        for key, hashes in {"Lora hashes": self.loras, "TI hashes": self.embeddings}.items():
            if hashes:
                values[key] = ", ".join(f"{_bare(name)}: {hash}" for name, hash in hashes.items())
        values["Version"] = f"SeeSR {__version__}"
        return str(Infotext(self.prompt, self.negative_prompt, {key: str(value) for key, value in values.items()}))


def _bare(name: str) -> str:
    """The name of a file without what separates names in an infotext."""
    return name.rpartition("/")[2].replace(":", "").replace(",", "")
