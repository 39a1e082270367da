"""The results of a job: the image, and how it was computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Generic, TypeVar

from PIL import Image

from seesr.errors import Attempt
from seesr.images.animation import write_frames
from seesr.images.frame_writers import FrameWriter, OutputFrame
from seesr.images.frames import FrameSequence
from seesr.images.metadata import Metadata
from seesr.images.save import Deep, Target, save_on_success
from seesr.images.sizes import Sizes
from seesr.notes import Notes
from seesr.options import OptionModel, Options, SaveOptions
from seesr.tagging.prompt import Tag
from seesr.version import __version__

DEPRECATED_STAGE_NAMES = {"read": "decode", "vae_decode": "pixels"}
"""Names that stages had up to version 0.1, by their names now; `Result.record` gives seconds under both for one release."""


AnyOptions = TypeVar("AnyOptions", bound=OptionModel)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Generic[AnyOptions]):
    """A picture, and how it was computed."""

    image: Image.Image
    """RGB or RGBA, in the ICC profile of `image.info["icc_profile"]`, else in sRGB. Pillow's own `save` writes that profile
    to JPEG or WebP only if it is passed as `icc_profile`."""
    seed: int
    prompt: str
    """What the text encoder was given."""
    options: AnyOptions
    weights: str
    dtype: str
    """Precision of the networks, such as `bfloat16`."""
    seconds: dict[str, float]
    """Time of each stage, in the order in which the stages ran; for pictures of one batch, the time of the batch."""
    notes: list[str]
    """What the user should know about the conversion of the input, the computation, and the files that were written."""
    rung: str
    """Name of the memory plan: `whole`, `tiled VAE` and so on, as in docs/memory.md."""
    attempts: list[Attempt]
    """The memory plans that were tried before and ran out of memory."""
    vae: str
    """How the VAE was computed: `whole`, `exact tiles` (with the same result), or `estimated tiles` (with statistics of
    its group norms that were estimated from sample tiles)."""
    weights_digest: str = field(default="", kw_only=True)
    """`WeightsFolder.digest`, which tells weights of the same name apart."""
    deep: Deep | None = field(default=None, kw_only=True)
    """The samples of `image` where more than 8 bits were asked for."""
    metadata: Metadata = field(default_factory=Metadata, kw_only=True)
    """What the input's file holds beside its pixels, as far as it is true of `image`; `save` writes it."""
    peak_memory: int
    """Peak of the process in bytes, weights included: of the GPU's memory, or on a CPU of resident memory."""

    def save(self, target: Target, options: SaveOptions | None = None, name: str | None = None) -> None:
        """Writes the picture with its profile, its settings and, unless `options` excludes it, the input's metadata.

        What of the metadata the format does not hold is added to `notes`. `target` is a path, whose suffix determines the
        format, or a file that is open for writing bytes, whose format is `options.format`. On an error an existing file
        stays as it was. Error messages use `name`.

        Raises:
            OutputError: the suffix is unknown, or the file cannot be written.
            OptionError: of an open file the format is not given.
        """
        with self.save_on_success(target, options, name):
            pass

    @contextmanager
    def save_on_success(self, target: Target, options: SaveOptions | None = None, name: str | None = None) -> Iterator[None]:
        """Like `save`, but moves the file into place only after the body of the `with` statement has succeeded."""
        settings, infotext = self._written(options or SaveOptions())
        with save_on_success(self.image, target, options, settings, name, infotext, self.metadata, self.deep) as notes:
            yield
        self.notes.extend(note for note in notes if note not in self.notes)

    def _written(self, options: SaveOptions) -> tuple[dict[str, Any] | None, str | None]:
        """The settings and the infotext that go into a file."""
        return self.settings(), self.infotext()

    def settings(self) -> dict[str, Any]:
        """The settings that are written into the file: enough to compute the picture again from the input."""
        return {
            "version": __version__,
            "weights": self.weights,
            "weights_digest": self.weights_digest,
            "dtype": self.dtype,
            **self.options.model_dump(exclude_none=True),
            "seed": self.seed,
            "prompt": self.prompt,
            "rung": self.rung,
        }

    def infotext(self) -> str | None:
        """The settings as the A1111 web UI writes them, for pictures that were made from nothing else."""
        return None

    def record(self) -> dict[str, Any]:
        """All that the command and the service report about the picture, ready for JSON."""
        seconds = {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}
        deprecated = {old: seconds[new] for new, old in DEPRECATED_STAGE_NAMES.items() if new in seconds}
        return {
            "seed": self.seed,
            "prompt": self.prompt,
            "weights": self.weights,
            "dtype": self.dtype,
            "notes": self.notes,
            "rung": self.rung,
            "attempts": [{"rung": attempt.rung, "reason": attempt.reason} for attempt in self.attempts],
            "vae": self.vae,
            "peak_memory": self.peak_memory,
            "seconds": seconds | deprecated,
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class UpscaleResult(Result[Options]):
    """An upscaled picture.

    `prompt` is made of `options.prompt`, the tags, and words for quality; `options.steps` is the number that was used, also
    where the weights determined it.
    """

    tags: list[Tag]
    sizes: Sizes
    input: Image.Image
    """The decoded input: RGB, upright, sRGB."""
    duration: Fraction | None = None
    """Seconds for which it is shown, where it is a frame of an animation."""
    frames: int = 1
    """Frames of which it tells; more than one only in what `UpscaledFrames.save` returns."""

    def with_frame(self, result: UpscaleResult) -> UpscaleResult:
        """This result, which tells of the frame `result` too: seconds add up, what is new is added; the rest stays."""
        stages = self.seconds | result.seconds
        return replace(
            self,
            frames=self.frames + result.frames,
            seconds={stage: self.seconds.get(stage, 0) + result.seconds.get(stage, 0) for stage in stages},
            notes=list(dict.fromkeys([*self.notes, *result.notes])),
            attempts=list(dict.fromkeys([*self.attempts, *result.attempts])),
            peak_memory=max(self.peak_memory, result.peak_memory),
        )

    def settings(self) -> dict[str, Any]:
        """`Result.settings`, with the user's own part of the prompt as `words`."""
        return super().settings() | {"words": self.options.prompt}

    def record(self) -> dict[str, Any]:
        """`Result.record` with tags, and with sizes as (width, height); the working size is what the networks compute."""
        return super().record() | {
            "steps": self.options.steps,
            "frames": self.frames,
            "tags": {tag.name: round(tag.confidence, 4) for tag in self.tags},
            "input_size": self.sizes.input,
            "output_size": self.sizes.output,
            "working_size": self.sizes.working,
        }

    def log(self) -> list[str]:
        """Lines for the log of a service."""
        width, height = self.sizes.output
        stages = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in self.seconds.items())
        return [
            f"seed: {self.seed}",
            f"tags: {', '.join(tag.name for tag in self.tags) or 'none'}",
            f"prompt: {self.prompt}",
            f"size: {width}x{height}, memory plan: {self.rung}, VAE: {self.vae}",
            *([f"frames: {self.frames}"] if self.frames > 1 else []),
            *(f"memory did not suffice for {attempt.rung}: {attempt.reason}" for attempt in self.attempts),
            *(f"note: {note}" for note in self.notes),
            f"seconds: {sum(self.seconds.values()):.1f} ({stages})",
        ]

    def metrics(self) -> dict[str, Any]:
        """The metrics of a prediction that a service reports, by name."""
        record, (width, height) = self.record(), self.sizes.output
        metrics = {"seed": self.seed, "output_width": width, "output_height": height, "rung": self.rung}
        metrics |= {"frames": self.frames, "attempts": len(self.attempts), "peak_memory_bytes": self.peak_memory}
        return metrics | {f"seconds.{stage}": seconds for stage, seconds in record["seconds"].items()}


class UpscaledFrames(Iterator[UpscaleResult]):
    """The frames of an input, each upscaled when it is asked for, once.

    Raises:
        SeeSRError: of a frame as `Upscaler.upscale`; no frame follows it.
    """

    def __init__(self, sequence: FrameSequence, results: Iterator[UpscaleResult]) -> None:
        self.sequence, self._results = sequence, results

    def __next__(self) -> UpscaleResult:
        return next(self._results)

    def save(self, target: Target, options: SaveOptions | None = None, name: str | None = None) -> UpscaleResult:
        """Upscales all frames and writes each as it comes, as an animation or as pages; otherwise as `Result.save`.

        PNG (APNG), WebP and GIF hold an animation, TIFF pages; one frame goes into every format.

        Returns:
            The first result, with seconds, notes and memory of all frames and their number.

        Raises:
            OutputError: the format does not hold several frames; or as `Result.save`, and nothing is written then.
            SeeSRError: of a frame as `Upscaler.upscale`, and nothing is written then.
        """
        with self.save_on_success(target, options, name) as summary:
            return summary

    @contextmanager
    def save_on_success(
        self, target: Target, options: SaveOptions | None = None, name: str | None = None
    ) -> Iterator[UpscaleResult]:
        """Like `save`, but moves the file into place only after the body of the `with` statement has succeeded."""
        notes = Notes()
        with write_frames(target, self.sequence, options, name, notes) as writer:
            summary = self._write(writer)
            summary.notes.extend(note for note in notes if note not in summary.notes)
            yield summary

    def _write(self, writer: FrameWriter) -> UpscaleResult:
        summary: UpscaleResult | None = None
        for result in self:
            frame = OutputFrame(result.image, result.duration, result.settings(), result.metadata, result.deep)
            writer.add(frame)
            summary = result if summary is None else summary.with_frame(result)
        if summary is None:
            raise ValueError("all frames were taken before")
        return summary
