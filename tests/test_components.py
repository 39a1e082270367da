"""Where the networks are: one at a time on the device, in their files, or back where they were after a failed move."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn

from seesr import Upscaler
from seesr.components import Components, NetworkSpec
from seesr.machine.device import CPU
from seesr.planning.plan import MemoryPlan

META = torch.device("meta")
"""Stands for a GPU: of a device only the name counts here."""


class Moved(nn.Linear):
    """A network that notes where it goes, and may not arrive."""

    def __init__(self, name: str, moves: list[tuple[str, str]], error: BaseException | None = None) -> None:
        super().__init__(1, 1)
        self.name, self.moves, self.error = name, moves, error

    def to(self, device: torch.device | None = None, **_: object) -> Moved:
        if device is not None:
            self.moves.append((self.name, device.type))
            if self.error is not None and device == META:
                raise self.error
        return self


def test_sequential_keeps_one_network_at_a_time_on_the_device() -> None:
    moves: list[tuple[str, str]] = []
    specs = [NetworkSpec(name, lambda name=name: Moved(name, moves)) for name in ("ram", "vae", "unet", "controlnet")]
    components = Components(specs, META, sequential=True)
    moves.clear()
    with components.on(MemoryPlan("whole", META, 0, 96, 32, sequential=True)):
        for names in (["ram"], ["vae"], ["unet", "controlnet"]):
            with components.running(*names):
                assert moves == [(name, "meta") for name in names]
            assert moves[len(names) :] == [(name, "cpu") for name in names]
            moves.clear()


def test_sequential_on_a_cpu_leaves_what_does_not_run_in_its_files(upscaler: Upscaler, small_photo: Image.Image) -> None:
    usual = upscaler.upscale(small_photo, scale=2, steps=1, seed=0)
    components = (one_by_one := Upscaler.load(device="cpu", dtype="float32", sequential=True)).engine.components

    def in_memory() -> list[str]:
        networks = components.networks.items()
        return [name for name, network in networks if any(not weight.is_meta for weight in network.parameters())]

    with components.on(MemoryPlan("whole", CPU, 0, 96, 32, sequential=True)):
        assert in_memory() == []
        with components.running("unet", "controlnet"):
            assert in_memory() == ["unet", "controlnet"]
    assert one_by_one.upscale(small_photo, scale=2, steps=1, seed=0).image.tobytes() == usual.image.tobytes()
    assert in_memory() == []
    assert one_by_one.engine.costs == upscaler.engine.costs, "the plan knows their sizes all the same"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), KeyboardInterrupt()], ids=["memory", "cancel"])
def test_a_move_that_fails_leaves_everything_where_it_was(error: BaseException) -> None:
    names, moves = ("ram", "vae", "unet", "cleaner"), list[tuple[str, str]]()
    components = Components(
        [NetworkSpec(name, lambda name=name: Moved(name, moves, error if name == "unet" else None)) for name in names], CPU
    )
    moves.clear()
    with pytest.raises(type(error)), components.on(MemoryPlan("whole", META, 0, 96, 32)):
        pass
    begun = names[: names.index("unet") + 1]
    assert moves == [*((name, "meta") for name in begun), *((name, "cpu") for name in names)]
    with components.on(MemoryPlan("whole", CPU, 0, 96, 32)):
        assert len(moves) == len(begun) + len(names), "all are there already"
