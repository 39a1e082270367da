"""The operator's limits: what one job may ask for, and how much a user may have."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from seesr.generation.options import GenerationOptions
from seesr.images.sizes import Size, scale_factor, scaled
from seesr.jobs import GenerationRequest, JobRequest, TagsRequest, UpscaleRequest
from seesr.options import OptionModel
from seesr.studio.errors import LimitError

MEGA = 1_000_000
ASSUMED_SIDE = 512
"""Pixels of a side where none is asked for: the checkpoint that decides it is known to the worker alone."""
ASSUMED_STEPS = 20
"""Likewise of the steps."""
UPSCALE_STEPS = 4
"""The most that upscaling takes."""


class QueueLimits(OptionModel):
    """Limits on the queue and on a user's share of it; None is no limit."""

    queue_length: int | None = Field(default=1000, ge=1, description="Pending jobs in all.")
    user_queue_length: int | None = Field(default=200, ge=1, description="Pending jobs of a user.")
    jobs_per_hour: int | None = Field(default=None, ge=1, description="Jobs that a user may ask for within an hour.")
    megapixels_per_hour: float | None = Field(
        default=None, gt=0, description="Megapixels that a user may ask for within an hour."
    )

    def check_queue(self, pending: int, pending_of_user: int) -> None:
        """Whether one more job fits.

        Raises:
            LimitError: it does not.
        """
        if self.queue_length is not None and pending >= self.queue_length:
            raise LimitError(f"{pending} jobs are pending, and the limit is {self.queue_length}; try again later.")
        if self.user_queue_length is not None and pending_of_user >= self.user_queue_length:
            raise LimitError(
                f"{pending_of_user} of your jobs are pending, and the limit is {self.user_queue_length}; "
                "wait for one of them, or cancel one."
            )

    def check_hour(self, jobs: int, used: float, megapixels: float) -> None:
        """Whether one more job of `megapixels` fits into a user's hour, in which there were `jobs` of `used` megapixels.

        Raises:
            LimitError: it does not.
        """
        if self.jobs_per_hour is not None and jobs >= self.jobs_per_hour:
            raise LimitError(
                f"you have asked for {jobs} jobs within the last hour, and the limit is {self.jobs_per_hour}; "
                "try again later."
            )
        if self.megapixels_per_hour is not None and used + megapixels > self.megapixels_per_hour:
            raise LimitError(
                f"the job has {megapixels:.1f} megapixels, and {max(0.0, self.megapixels_per_hour - used):.1f} of the "
                f"{self.megapixels_per_hour:g} within an hour are left; try again later, or ask for less."
            )


class OperatorLimits(QueueLimits):
    """All limits, as they stand in `studio.toml`; None is no limit."""

    pixels: int | None = Field(default=64_000_000, ge=1, description="Width times height of a picture that is made.")
    steps: int | None = Field(default=3000, ge=1, description="Denoising steps times pictures of a job.")
    seconds: float | None = Field(default=3600, gt=0, description="Seconds of a job, after which its worker is ended.")
    quota_bytes: int | None = Field(default=None, ge=1, description="Bytes of a user's pictures and uploads.")
    retention_days: float | None = Field(
        default=None, gt=0, description="Days after which a picture and an ended job are removed."
    )
    trash_days: float | None = Field(default=30, gt=0, description="Days after which a picture in the trash is removed.")

    def check(self, request: JobRequest, sizes: Mapping[str, Size]) -> float:
        """Whether a job may be asked for.

        Args:
            sizes: of the pictures that it takes, by content hash.

        Returns:
            megapixels of its pictures in all.

        Raises:
            LimitError: it exceeds a limit.
        """
        width, height = output_size(request, sizes)
        if self.pixels is not None and width * height > self.pixels:
            raise LimitError(
                f"the picture would have {width}x{height} pixels, and the limit is {self.pixels:,} in all; "
                "ask for a smaller one."
            )
        count = request.options.count if isinstance(request, GenerationRequest) else 1
        steps = steps_of_picture(request) * count
        if self.steps is not None and steps > self.steps:
            raise LimitError(
                f"the job has {steps} steps over all its pictures, and the limit is {self.steps}; ask for fewer of them."
            )
        return width * height * count / MEGA

    def check_quota(self, used: int, more: int = 0) -> None:
        """Whether a user with `used` bytes may have `more`; without `more`, whether there is anything left.

        Raises:
            LimitError: the quota is used up.
        """
        if self.quota_bytes is not None and used + max(1, more) > self.quota_bytes:
            raise LimitError(
                f"your pictures take {used / MEGA:.1f} MB, and the quota is {self.quota_bytes / MEGA:.1f} MB; "
                "remove some of them."
            )


def output_size(request: JobRequest, sizes: Mapping[str, Size]) -> Size:
    """The size of a job's pictures; (0, 0) of a job that makes none."""
    match request:
        case TagsRequest():
            return 0, 0
        case UpscaleRequest():
            size = sizes[request.image]
            factor = scale_factor(size, request.options.scale, request.options.max_side)
        case GenerationRequest():
            size = _generated_size(request, sizes)
            factor = (request.options.second_pass or 1) * (request.options.upscale or 1)
    return scaled(size, factor)


def _generated_size(request: GenerationRequest, sizes: Mapping[str, Size]) -> Size:
    options = request.options
    if request.image is None:
        return options.width or ASSUMED_SIDE, options.height or ASSUMED_SIDE
    width, height = sizes[request.image]
    left, top, right, bottom = options.outpaint or (0, 0, 0, 0)
    if request.task == "inpainting" or options.outpaint:
        return width + left + right, height + top + bottom
    if options.width and options.height:
        return options.width, options.height
    factor = options.width / width if options.width else options.height / height if options.height else 1
    return options.width or max(1, round(width * factor)), options.height or max(1, round(height * factor))


def steps_of_picture(request: JobRequest) -> int:
    """Denoising steps of each picture of a job."""
    match request:
        case TagsRequest():
            return 0
        case UpscaleRequest():
            return request.options.steps or UPSCALE_STEPS
        case GenerationRequest():
            return _generated_steps(request.options)


def _generated_steps(options: GenerationOptions) -> int:
    steps = options.steps or ASSUMED_STEPS
    return steps + (options.second_pass_steps or steps if options.second_pass else 0)
