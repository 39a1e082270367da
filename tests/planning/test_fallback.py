"""What happens when memory runs out: the next memory plan, the same picture, and nothing kept of the failed attempt."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from helpers import photograph, sharing, watching
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seesr import OutOfMemoryError, Result, Upscaler
from seesr.errors import Attempt
from seesr.machine.device import CPU
from seesr.planning.fallback import run_with_fallback
from seesr.planning.ladder import build_ladder
from seesr.planning.plan import Budget, MemoryPlan

STAGES = ["clean", "resize", "tags", "prompt", "encode", "denoise", "vae_decode", "colour", "finish"]
RUNGS = ["whole", "tiled VAE", "tiled latents", "smaller tiles"]


class Fault(TorchDispatchMode):
    """Raises out of memory at the n-th operation of a stage, in each of the first `times` runs of that stage."""

    def __init__(self, stage: str, number: int, times: int) -> None:
        super().__init__()
        self.stage, self.number, self.times = stage, number, times
        self.now, self.count = "", 0

    def enter(self, stage: str) -> None:
        self.now, self.count = stage, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if self.now == self.stage and self.times > 0:
            self.count += 1
            if self.count == self.number:
                self.times -= 1
                raise torch.OutOfMemoryError("injected: no memory for this")
        return func(*args, **(kwargs or {}))


def faulty(upscaler: Upscaler, stage: str, number: int, times: int) -> tuple[Upscaler, Fault]:
    """An upscaler on the same networks with a fault, which acts while it is entered."""
    fault = Fault(stage, number, times)
    return sharing(upscaler, stages=watching(fault.enter)), fault


@pytest.fixture(scope="module")
def wide_photo() -> Image.Image:
    """72 latents wide when it is enlarged 4.5 times: more than a tile of 64, so that every memory plan differs."""
    return photograph("coffee.png", (200, 100, 260, 148))


def upscale(upscaler: Upscaler, photo: Image.Image) -> Result:
    return upscaler.upscale(photo, scale=4.5, steps=1, seed=3)


@pytest.fixture(scope="module")
def by_rung(upscaler: Upscaler, wide_photo: Image.Image) -> dict[str, Image.Image]:
    """The picture of each memory plan, which is tried first."""
    made = {}
    for number in range(len(RUNGS)):
        result = upscale(sharing(upscaler, ladder=lambda *values, number=number: build_ladder(*values)[number:]), wide_photo)
        assert not result.attempts
        made[result.rung] = result.image
    assert list(made) == RUNGS
    return made


def alive() -> int:
    """Bytes of all tensors that something still refers to."""
    gc.collect()
    return sum(one.nbytes for one in gc.get_objects() if type(one) is Tensor and one.device.type == "cpu")


@pytest.mark.parametrize(("stage", "number"), [*((stage, 1) for stage in STAGES), ("encode", 40), ("denoise", 40)])
def test_memory_that_runs_out_once_in_any_stage(
    upscaler: Upscaler,
    wide_photo: Image.Image,
    by_rung: dict[str, Image.Image],
    stage: str,
    number: int,
) -> None:
    broken, fault = faulty(upscaler, stage, number, 1)
    with fault:
        result = upscale(broken, wide_photo)
    assert fault.times == 0
    assert result.rung == "tiled VAE"
    assert [(attempt.rung, attempt.reason) for attempt in result.attempts] == [("whole", "injected: no memory for this")]
    assert result.image.tobytes() == by_rung["tiled VAE"].tobytes()


@pytest.mark.parametrize(
    ("stage", "times"),
    [("denoise", 2), *((stage, 3) for stage in ("clean", "tags", "denoise", "finish"))],
)
def test_memory_that_runs_out_again_and_again(
    upscaler: Upscaler,
    wide_photo: Image.Image,
    by_rung: dict[str, Image.Image],
    stage: str,
    times: int,
) -> None:
    broken, fault = faulty(upscaler, stage, 2, times)
    with fault:
        result = upscale(broken, wide_photo)
    assert result.rung == RUNGS[times]
    assert [attempt.rung for attempt in result.attempts] == RUNGS[:times]
    assert result.image.tobytes() == by_rung[result.rung].tobytes()


def test_nothing_of_a_failed_attempt_is_alive_in_the_next(upscaler: Upscaler, wide_photo: Image.Image) -> None:
    fault, seen = Fault("colour", 3, 2), list[int]()

    def enter(stage: str) -> None:
        fault.enter(stage)
        if stage == "clean":
            seen.append(alive())

    broken = sharing(upscaler, stages=watching(enter))
    upscale(broken, wide_photo)  # from now on its tags are remembered
    before = alive()
    with fault:
        assert len(upscale(broken, wide_photo).attempts) == 2
    assert len(seen) == 1 + 3
    assert max(seen[1:]) <= before


def test_memory_is_given_back_between_attempts() -> None:
    done = list[object]()

    def run(plan: MemoryPlan) -> None:
        done.append(plan.name)
        if plan.name == "whole":
            raise MemoryError

    plans = [MemoryPlan("whole", CPU, 0, 96, 32), MemoryPlan("tiled VAE", CPU, 48, 96, 32)]
    run_with_fallback(plans, run, release=done.append)
    assert done == ["whole", CPU, "tiled VAE"]


def test_pictures_that_do_not_fit_together_go_one_by_one(upscaler: Upscaler, small_photo: Image.Image) -> None:
    alone = upscaler.upscale(small_photo, scale=2, steps=1, seed=0)
    broken, fault = faulty(upscaler, "denoise", 5, 1)
    with fault:
        results = broken.upscale_many([small_photo, small_photo], together=2, scale=2, steps=1, seed=0)
    assert [result.rung for result in results] == ["whole", "whole"]
    assert [result.attempts for result in results] == [[Attempt("whole, 2 pictures", "injected: no memory for this")]] * 2
    assert all(result.image.tobytes() == alone.image.tobytes() for result in results)


def test_the_ladder_ends_with_a_clear_error_and_leaves_nothing(upscaler: Upscaler, wide_photo: Image.Image) -> None:
    broken, fault = faulty(upscaler, "vae_decode", 25, 99)
    upscale(broken, wide_photo)  # from now on its tags are remembered
    before = alive()
    with (
        fault,
        pytest.raises(OutOfMemoryError, match=r"with every plan \(whole, tiled VAE, tiled latents, smaller tiles; injected"),
    ):
        upscale(broken, wide_photo)
    assert alive() <= before
    assert upscale(broken, wide_photo).rung == "whole"


def test_another_error_is_no_reason_to_try_again(upscaler: Upscaler, wide_photo: Image.Image) -> None:
    tried = list[str]()

    def enter(stage: str) -> None:
        tried.append(stage)
        if stage == "denoise":
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        upscale(sharing(upscaler, stages=watching(enter)), wide_photo)
    assert tried.count("denoise") == 1


def test_all_rungs_show_the_same_picture(by_rung: dict[str, Image.Image]) -> None:
    pictures = [np.asarray(image, dtype=float) for image in by_rung.values()]
    assert np.abs(pictures[1] - pictures[0]).max() <= 1, "the tiled VAE is exact"
    for picture in pictures[2:]:
        assert np.abs(picture - pictures[0]).mean() < 3


@pytest.mark.parametrize(
    ("limit", "rung", "notes"),
    [
        (55_000_000, "tiled latents", []),
        (30_000_000, "smaller tiles", ["no plan fits the memory limit; the smallest one is used"]),
    ],
)
def test_a_small_budget_is_planned_for(
    upscaler: Upscaler, wide_photo: Image.Image, limit: int, rung: str, notes: list[str]
) -> None:
    result = upscale(sharing(upscaler, budget=lambda *_: Budget(limit, limit)), wide_photo)
    assert (result.rung, result.notes) == (rung, notes)
    assert result.vae == "exact tiles"
    assert not result.attempts
