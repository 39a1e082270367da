"""Jobs of every task on the embedded models, as the worker runs them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from helpers import encoded, photograph
from PIL import Image

from seesr.generation.checkpoints import resolve_checkpoint
from seesr.generation.options import GenerationOptions
from seesr.images.metadata import read_settings
from seesr.job_runner import JobRunner, WorkerSettings
from seesr.jobs import GenerationRequest, JobEvent, JobRequest, TagsRequest, UpscaleRequest, content_hash
from seesr.options import Options, ReadOptions, SaveOptions
from seesr.weights.manifest import beside_package

PASSING = ("progress", "preview")


@pytest.fixture(scope="module")
def runner() -> Iterator[JobRunner]:
    runner = JobRunner(WorkerSettings(device="cpu"))
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return encoded(photograph("chelsea.png", (150, 80, 198, 120)), "PNG")


def generation(count: int = 1, steps: int = 1, **values: object) -> GenerationRequest:
    options = GenerationOptions(prompt="a red star", width=64, height=64, steps=steps, seed=5, batch_count=count)
    return GenerationRequest.model_validate({"options": options, **values})


def run(
    runner: JobRunner, request: JobRequest, *inputs: bytes, see: Callable[[JobEvent], None] = lambda event: None
) -> list[JobEvent]:
    events = list[JobEvent]()

    def emit(event: JobEvent) -> None:
        events.append(event)
        see(event)

    runner.run("job", request, {content_hash(content): content for content in inputs}, emit)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    json.dumps([event.model_dump(mode="json") for event in events])
    return events


def kinds(events: list[JobEvent]) -> list[str]:
    return [event.kind for event in events if event.kind not in PASSING]


def contents(events: list[JobEvent]) -> list[bytes]:
    return [event.content or b"" for event in events if event.kind == "picture"]


def test_pictures_come_as_the_files_that_were_asked_for(runner: JobRunner) -> None:
    events = run(runner, generation(count=2, saving=SaveOptions(format="webp")))
    assert kinds(events) == ["started", "picture", "picture", "done"]
    for number, event in enumerate(event for event in events if event.kind == "picture"):
        image = Image.open(io.BytesIO(event.content or b""))
        assert (image.format, image.size) == ("WEBP", (event.data["width"], event.data["height"]))
        assert (event.data["index"], event.data["seed"], event.data["media_type"]) == (number, 5 + number, "image/webp")
        assert read_settings(image) == json.loads(json.dumps(event.data["settings"]))
    result = events[-1].data["result"]
    assert result["plan"] == "whole"
    assert result["seconds"].keys() >= {"prompt", "denoise", "vae_decode"}
    progress = [event.data for event in events if event.kind == "progress" and event.data["stage"] == "denoise"]
    assert {(one["picture"], one["pictures"], one["plan"]) for one in progress} == {(0, 2, "whole"), (1, 2, "whole")}
    previews = [event for event in events if event.kind == "preview"]
    assert previews
    assert Image.open(io.BytesIO(previews[0].content or b"")).format == "JPEG"


def test_upscaling_and_tags_are_told_alike(runner: JobRunner, photo: bytes) -> None:
    name = content_hash(photo)
    events = run(runner, UpscaleRequest(task="upscale", image=name, options=Options(scale=2, steps=1)), photo)
    assert kinds(events) == ["started", "picture", "done"]
    assert Image.open(io.BytesIO(contents(events)[0])).size == (96, 80)
    events = run(runner, TagsRequest(task="tags", image=name), photo)
    assert kinds(events) == ["started", "tags", "done"]
    assert events[-2].data["tags"] == events[-1].data["result"]["tags"]


def test_all_frames_of_an_animation_are_one_picture(runner: JobRunner) -> None:
    frames = [Image.new("RGB", (24, 24), color) for color in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    reading, options = ReadOptions(frames="all"), Options(scale=1, steps=1, tags=False)
    request = UpscaleRequest(task="upscale", image=content_hash(content), reading=reading, options=options)
    events = run(runner, request, content)
    assert kinds(events)[-2:] == ["picture", "done"]
    assert getattr(Image.open(io.BytesIO(contents(events)[0])), "n_frames", 1) == 2


def test_a_job_is_cancelled_within_a_call_of_the_unet(runner: JobRunner, photo: bytes) -> None:
    requests = {"unet": generation(steps=4), "controlnet": UpscaleRequest(task="upscale", image=content_hash(photo))}
    for network, request in requests.items():
        run(runner, request, photo)  # loads it
        components = next(reversed(runner.models._loaded.values())).engine.components
        convolutions = [layer for layer in components[network].modules() if isinstance(layer, torch.nn.Conv2d)]
        calls = list[int]()

        def count(*_: object, calls: list[int] = calls) -> None:
            calls.append(1)
            runner.cancel("another job")
            if len(calls) == 3:
                runner.cancel("job")

        handles = [layer.register_forward_hook(count) for layer in convolutions]
        events = run(runner, request, photo)
        for handle in handles:
            handle.remove()
        assert kinds(events) == ["started", "cancelled"]
        assert len(calls) == 3 < len(convolutions)
        assert kinds(run(runner, request, photo))[-1] == "done"


def test_what_is_skipped_leaves_the_other_pictures_as_they_would_have_been(runner: JobRunner) -> None:
    whole = run(runner, generation(count=3, steps=2))
    skipped = list[JobEvent]()

    def skip(event: JobEvent) -> None:
        if event.kind == "progress" and event.data["picture"] == 1 and not skipped:
            skipped.append(event)
            runner.skip("job")

    events = run(runner, generation(count=3, steps=2), see=skip)
    assert kinds(events) == ["started", "picture", "note", "picture", "done"]
    assert [event.data["index"] for event in events if event.kind == "picture"] == [0, 2]
    pixels = [[Image.open(io.BytesIO(one)).tobytes() for one in contents(told)] for told in (whole, events)]
    assert pixels[1] == [pixels[0][0], pixels[0][2]]


@pytest.mark.parametrize("name", ["../../../etc", "/etc/passwd", "weights/pictograms", "tiny", "nothing"])
def test_a_request_cannot_name_what_is_not_among_the_models(runner: JobRunner, name: str) -> None:
    for field in ("checkpoint", "vae"):
        events = run(runner, generation(**{field: name}))
        assert kinds(events) == ["started", "failed"]
        assert events[-1].data["code"] == "OptionError"
        assert events[-1].data["error"].startswith(f"unknown {'VAE' if field == 'vae' else field} {name!r}")


def test_a_checkpoint_is_found_by_its_digest_wherever_models_are_and_by_no_digest_that_it_had_before(
    runner: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    folder = tmp_path / "models" / "checkpoints" / "drawings" / "other"
    shutil.copytree(beside_package("pictograms"), folder)
    digests = [resolve_checkpoint("pictograms").digest]
    for steps in (2, 3):
        (folder / "seesr.json").write_text(json.dumps({"dtype": "float32", "steps": steps}))
        digests.append(resolve_checkpoint(folder).digest)
        answers = [run(runner, generation(checkpoint=digest))[-1] for digest in digests]
        assert [answer.kind for answer in answers] == ["done", *["failed"] * (steps - 2), "done"]
        assert runner.loaded()[-1] == "other"


def test_errors_name_no_folder_of_the_operators(runner: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    damaged = tmp_path / "models" / "checkpoints" / "damaged.safetensors"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"not safetensors")
    failed = run(runner, generation(checkpoint="damaged"))[-1]
    assert failed.data["code"] == "WeightsError"
    assert str(tmp_path) not in failed.data["error"]
    assert "damaged.safetensors" in failed.data["error"]


@pytest.mark.parametrize("switches", [8, pytest.param(20, marks=pytest.mark.long)])
def test_switching_between_checkpoints_keeps_pictures_and_memory_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switches: int
) -> None:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    other = tmp_path / "models" / "checkpoints" / "other"
    shutil.copytree(beside_package("pictograms"), other)
    # So little that each takes the other's place.
    runner = JobRunner(WorkerSettings(device="cpu"), weight_bytes=1_000_000)
    requests = [generation(checkpoint="pictograms"), generation(checkpoint="other")]
    first, used = [contents(run(runner, request)) for request in requests], list[int]()
    for _ in range(switches // 2):
        for request, before in zip(requests, first, strict=True):
            assert contents(run(runner, request)) == before
            assert len(runner.loaded()) == 1
        used.append(psutil.Process().memory_info().rss)
    runner.close()
    assert used[-1] - used[0] < 30_000_000
    assert runner.loaded() == []
