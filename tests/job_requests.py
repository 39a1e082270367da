"""Requests for tests: one for a picture, and those of every task as hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from seesr.generation.controls import ControlUnit
from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest, JobRequest, TagsRequest, UpscaleRequest, content_hash
from seesr.options import Options, SaveOptions

IMAGE, MASK = content_hash(b"a picture"), content_hash(b"a mask")
hashes = st.sampled_from([IMAGE, MASK])
options = st.builds(
    GenerationOptions,
    prompt=st.text(max_size=20),
    steps=st.none() | st.integers(1, 150),
    width=st.none() | st.integers(8, 256).map(lambda number: number * 8),
    height=st.none() | st.integers(8, 256).map(lambda number: number * 8),
    loras=st.sampled_from([(), ("pencil:0.8",)]),
    batch_size=st.integers(1, 16),
    batch_count=st.integers(1, 100),
    second_pass=st.none() | st.floats(1, 4),
    second_pass_steps=st.none() | st.integers(1, 150),
    upscale=st.none() | st.floats(1, 8),
)
control_units = st.builds(ControlUnit, name=st.just("canny"), image=hashes, weight=st.floats(0, 2))
text_to_image = st.builds(GenerationRequest, options=options, controls=st.lists(control_units, max_size=2).map(tuple))
image_to_image = st.builds(GenerationRequest, task=st.just("image to image"), options=options, image=hashes)
inpainting = st.builds(GenerationRequest, task=st.just("inpainting"), options=options, image=hashes, mask=hashes)
upscales = st.builds(
    UpscaleRequest,
    task=st.just("upscale"),
    options=st.builds(Options, scale=st.floats(1, 8), max_side=st.none() | st.integers(16, 65535)),
    saving=st.builds(SaveOptions, format=st.sampled_from([None, "png", "webp"])),
    image=hashes,
)
tags = st.builds(TagsRequest, task=st.just("tags"), image=hashes)
job_requests: st.SearchStrategy[JobRequest] = st.one_of(text_to_image, image_to_image, inpainting, upscales, tags)


def generation(prompt: str = "grey", **values: object) -> GenerationRequest:
    """A request for a picture, of one step unless `values`, the other options, say more."""
    return GenerationRequest(options=GenerationOptions.model_validate({"prompt": prompt, "steps": 1, **values}))
