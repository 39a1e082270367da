"""The operator's limits: what a job may ask for, estimated before anything is made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_requests import job_requests

from seesr.errors import OptionError
from seesr.jobs import JobRequest, content_hash, parse_request
from seesr.studio.errors import LimitError
from seesr.studio.limits import OperatorLimits, output_size, steps_of_picture

IMAGE = content_hash(b"a picture")
SIZES = {IMAGE: (300, 200)}


def request(task: str, **options: Any) -> JobRequest:
    """A job on a picture of 300x200 pixels, where it takes one."""
    names = {"image to image": ["image"], "inpainting": ["image", "mask"], "upscale": ["image"], "tags": ["image"]}
    given = dict.fromkeys(names.get(task, []), IMAGE)
    return parse_request({"task": task, **given, **({} if task == "tags" else {"options": options})})


@pytest.mark.parametrize(
    ("job", "size", "steps"),
    [
        (request("text to image"), (512, 512), 20),
        (request("text to image", width=640, height=320, upscale=2, steps=4), (1280, 640), 4),
        (request("text to image", width=320, height=320, second_pass=1.5, steps=5), (480, 480), 10),
        (request("text to image", second_pass=2, second_pass_steps=3, steps=5), (1024, 1024), 8),
        (request("image to image"), (300, 200), 20),
        (request("image to image", width=600), (600, 400), 20),
        (request("image to image", height=600), (900, 600), 20),
        (request("image to image", outpaint=(10, 20, 30, 40)), (340, 260), 20),
        (request("inpainting", width=512, height=512), (300, 200), 20),
        (request("upscale", scale=2.5), (750, 500), 4),
        (request("upscale", max_side=900, steps=1), (900, 600), 1),
        (request("tags"), (0, 0), 0),
    ],
)
def test_size_and_steps_are_those_that_are_made(job: JobRequest, size: tuple[int, int], steps: int) -> None:
    assert (output_size(job, SIZES), steps_of_picture(job)) == (size, steps)


@given(job=job_requests, pixels=st.integers(1, 10**8), steps=st.integers(1, 10**5))
def test_job_is_refused_exactly_beyond_a_limit(job: JobRequest, pixels: int, steps: int) -> None:
    sizes = dict.fromkeys(job.pictures, (640, 480))
    width, height = output_size(job, sizes)
    count = getattr(job.options, "count", 1) if job.task != "tags" else 1
    limits = OperatorLimits(pixels=pixels, steps=steps)
    if width * height > pixels or steps_of_picture(job) * count > steps:
        with pytest.raises(LimitError, match="the limit is"):
            limits.check(job, sizes)
    else:
        assert limits.check(job, sizes) == pytest.approx(width * height * count / 1e6)
    assert OperatorLimits(pixels=None, steps=None).check(job, sizes) >= 0


def test_messages_name_value_and_limit() -> None:
    limits = OperatorLimits(pixels=1_000_000, steps=100, quota_bytes=5_000_000)
    with pytest.raises(
        LimitError, match="would have 1200x1200 pixels, and the limit is 1,000,000 in all; ask for a smaller one"
    ):
        limits.check(request("text to image", width=600, height=600, upscale=2), {})
    with pytest.raises(LimitError, match="has 120 steps over all its pictures, and the limit is 100; ask for fewer"):
        limits.check(request("text to image", steps=30, batch_size=4), {})
    limits.check_quota(4_000_000, 1_000_000)
    with pytest.raises(LimitError, match=r"take 4\.0 MB, and the quota is 5\.0 MB; remove some of them"):
        limits.check_quota(4_000_000, 1_000_001)
    with pytest.raises(LimitError, match="the quota is"):
        limits.check_quota(5_000_000)
    OperatorLimits().check_quota(10**15)
    with pytest.raises(OptionError, match=r"queue_length is 0"):
        OperatorLimits(queue_length=0)
