"""The Cog surface: translates a request to options and calls Upscaler.

`BasePredictor` and `predict` are what Cog 0.23 and those before it accept; 0.23 warns that they are named `BaseRunner` and
`run` now. Cog reads the inputs from this source when it builds, so they are literals; a test compares them with
`seesr/options.py`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path as LocalPath

from cog import BasePredictor, Input, Path
from PIL import Image

from seesr import Options, Upscaler
from seesr.errors import InputError
from seesr.images.encoded import EncodedImage
from seesr.images.read import FIRST_FRAME
from seesr.images.save import check_bits, pillow_format
from seesr.machine.allocator import single_malloc_arena, trim_heap
from seesr.machine.device import dtype_name
from seesr.machine.temporary_folder import make_temporary_folder
from seesr.machine.worker_thread import WorkerThread
from seesr.options import Limits, ReadOptions, SaveOptions
from seesr.public_error import sanitize_errors


class Predictor(BasePredictor):
    """Loads the models once, upscales a picture for each request."""

    def setup(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] # Cog looks for `weights`
        """Loads the weights that SEESR_WEIGHTS names, else the full model in the cache, else the embedded one; runs it."""
        # Cog puts what it fetches where Python's temporary files go: a folder of our own tells it from other files.
        self.folder = make_temporary_folder()
        tempfile.tempdir = str(self.folder)
        # Pillow's warnings about damaged EXIF hold paths of this machine, and the log goes to the client.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        print("loading the models")
        self.upscaler = Upscaler.load()
        engine = self.upscaler.engine
        print(f"weights: {self.upscaler.weights.name}, on {engine.device} in {dtype_name(engine.dtype)}")
        single_malloc_arena()
        # Cog calls `predict` on another thread each time.
        self.thread = WorkerThread()
        print("trying them on a first picture")  # Cog 0.23 can leave the very last line out of what /health-check tells
        noise = Image.effect_noise((64, 64), 64).convert("RGB")
        # Without the operator's limits: the first picture is the slowest, and could exceed the time limit.
        limits, engine.limits = engine.limits, Limits()
        warm_up = self.thread.run(lambda: self.upscaler.upscale(noise, scale=2, steps=1, seed=0))
        engine.limits = limits
        self.upscaler.clear_caches()
        print(f"ready: a first picture took {sum(warm_up.seconds.values()):.1f} s")

    def predict(
        self,
        image: Path = Input(description="The picture to upscale: JPEG, PNG, WebP, TIFF, HEIC, AVIF, GIF or BMP."),
        scale: float = Input(description="Output side over input side; may be fractional.", default=4.0, ge=1, le=8),
        prompt: str = Input(
            description="Description of the picture in your own words; the tags are appended.", default="", max_length=1000
        ),
        num_inference_steps: int | None = Input(
            description="Denoising steps: 1 is fastest, 4 adds most detail; the default depends on the weights, usually 2.",
            default=None,
            ge=1,
            le=4,
        ),
        preset: str | None = Input(
            description="speed, quality or memory; inputs that are given explicitly take precedence.",
            default=None,
            choices=["speed", "quality", "memory"],
        ),
        tags: bool = Input(
            description="Add the tags that RAM (Recognize Anything) recognises in the picture to the prompt.", default=True
        ),
        conditioning_scale: float = Input(
            description="Strength of the ControlNet; lower values invent more detail.", default=1.0, ge=0, le=2
        ),
        clean: float = Input(
            description="Share of the cleaner's work that is taken: it removes noise, blur and JPEG blocks; 0 keeps grain.",
            default=1.0,
            ge=0,
            le=1,
        ),
        edges: float = Input(
            description="Edge enhancement before upscaling: strengthens details but not noise; 0 is off.",
            default=0.0,
            ge=0,
            le=2,
        ),
        color_fix: str = Input(
            description="Method that restores the input's colours: wavelet, lab, adain or none.",
            default="wavelet",
            choices=["wavelet", "lab", "adain", "none"],
        ),
        kds: bool = Input(
            description="Kernel density steering: several particles, moved towards what most of them agree on; slower.",
            default=False,
        ),
        kds_particles: int = Input(description="Number of particles of kernel density steering.", default=10, ge=1, le=16),
        kds_bandwidth: float | None = Input(
            description="Bandwidth of its kernel: large is nearer the mean, small keeps detail; else the median distance.",
            default=None,
            ge=0.001,
            le=1000,
        ),
        kds_patch: int = Input(description="Side of its patches in latent pixels.", default=2, ge=1, le=16),
        bits: int = Input(
            description="Bits per channel of the result: 8; 16 for png and tiff; 10 or 12 for avif.",
            default=8,
            choices=[8, 10, 12, 16],
        ),
        tile: int | None = Input(
            description="Side of the diffusion tiles in latent pixels, from 16; 0: no tiling; by default as memory allows.",
            default=None,
            ge=0,
            le=1024,
        ),
        tile_overlap: int | None = Input(
            description="Overlap of diffusion tiles in latent pixels, at most half a tile; by default a third.",
            default=None,
            ge=0,
            le=512,
        ),
        tile_tags: bool = Input(description="Let RAM tag the part of the picture that each tile covers.", default=False),
        vae_tile: int | None = Input(
            description="Side of the VAE tiles in latent pixels, from 16; 0: no tiling; by default as memory allows.",
            default=None,
            ge=0,
            le=1024,
        ),
        sharpen: float = Input(description="Strength of an unsharp mask on the result; 0 is off.", default=0.0, ge=0, le=2),
        seed: int | None = Input(
            description="The same seed gives the same picture; by default a random seed is drawn and reported.",
            default=None,
            ge=0,
            le=4294967295,
        ),
        frames: str = Input(
            description="all: every frame of an animation, to png, webp or gif, and every page of a TIFF, to tiff.",
            default="first",
            choices=["first", "all"],
        ),
        output_format: str = Input(
            description="File format of the result; gif only with all frames.",
            default="png",
            choices=["png", "jpg", "webp", "gif", "tiff", "bmp", "avif"],
        ),
        output_quality: int = Input(
            description="Quality of jpg, webp and avif: 100 is best and gives the largest file.", default=95, ge=1, le=100
        ),
        keep_metadata: bool = Input(
            description="Keep the input's metadata: camera, date, author, place, keywords.", default=False
        ),
    ) -> Path:
        """Returns the picture file."""
        inputs = locals() | {"steps": num_inference_steps}
        with self._prediction():
            source = self._fetched(image)
            options = Options.make(preset, **{name: inputs[name] for name in Options.model_fields if name in inputs})
            check_bits(LocalPath(f"the result.{output_format}"), bits)
            saving = SaveOptions.make(format=output_format, quality=output_quality, metadata=keep_metadata)
            all_frames = ReadOptions.make(frames=frames).frames == "all"
            pillow_format(LocalPath(f"the result.{output_format}"), all_frames)
            # In a folder of its own, where `_fetched` finds nothing.
            target = self.folder / "result" / f"upscaled.{output_format}"
            target.parent.mkdir()
            if all_frames:
                run = partial(self.upscaler.upscale_frames, source, options, _log_step)
                result = self.thread.run(lambda: run().save(target, saving, name="the result"))
            else:
                result = self.thread.run(lambda: self.upscaler.upscale(source, options, _log_step))
                result.save(target, saving, name="the result")
            for line in result.log():
                print(line)
            if FIRST_FRAME in result.notes and not all_frames:
                print("note: the input frames=all takes all of them")
            for name, value in result.metrics().items():
                self.record_metric(name, value)
        return Path(target)

    @contextmanager
    def _prediction(self) -> Iterator[None]:
        """Tells a client what went wrong, not where files lie; nothing stays of what failed or was cancelled."""
        try:
            with sanitize_errors():
                yield
        except BaseException:
            self._clear()
            raise
        finally:
            trim_heap()

    def _fetched(self, image: Path) -> EncodedImage:
        """The picture that Cog downloaded or received; a path on the server's disk, which Cog also accepts, is refused."""
        # Python raises ValueError for a path with a null byte.
        source = LocalPath(os.path.realpath(str(image).replace("\0", "")))
        if source.parent != self.folder or not os.path.isfile(source):
            raise InputError("image is neither a data URL nor an http(s) address; files of the server are not read.")
        self._clear(source)
        return EncodedImage.read(source, self.upscaler.engine.limits, name="image")

    def _clear(self, source: LocalPath | None = None) -> None:
        """Removes all but `source`: the result of an earlier prediction, which Cog reads after `predict`, is still there."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != source:
                path.unlink(missing_ok=True)


def _log_step(stage: str, done: int, total: int) -> None:
    """A line for each denoising step, and before each of several frames."""
    if stage == "denoise":
        print(f"step {done} of {total}")
    elif stage == "frame" and total > 1:
        print(f"frame {done + 1} of {total}")
