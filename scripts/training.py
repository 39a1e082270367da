"""What every training stage shares: photographs and crops of them, the optimizer's run with its checkpoints, devices."""

from __future__ import annotations

import csv
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import typer
from identity_start import is_delicate
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from seesr.evaluation.degradation import crop_to_multiple, degrade, downscale_bicubic
from seesr.files import whole_file
from seesr.runtime.device import cpu_is_fastest_in_bfloat16
from seesr.weights.state_dict import DIFFUSERS_FILE

SCALE = 4
PLAIN = 0.3
"""Share of pictures whose low resolution is plain bicubic."""
DELICATE_FACTOR = 0.3
"""Learning rate of what carries the picture, relative to the rest."""
AVERAGING = 0.998
"""Share of the average of weights that a step keeps."""


@dataclass
class Run:
    """One stage's training: where it keeps its files, its models and optimizer, and how far it has come."""

    stage: str
    work: Path
    models: Mapping[str, nn.Module]
    steps: int
    learning_rate: float
    weight_decay: float = 1e-4
    steady: float = 0.0
    """Share of the steps before the learning rate begins to fall."""
    constrain: Callable[[], None] = lambda: None
    """Called after every step, to put weights back where they may be."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """What else makes the run what it is; a run goes on only with the settings it began with."""
    step: int = 0

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        trained = [p for model in self.models.values() for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if not is_delicate(p)], "factor": 1.0},
            {"params": [p for p in trained if is_delicate(p)], "factor": DELICATE_FACTOR},
        ]
        adam = {"betas": (0.9, 0.99), "weight_decay": self.weight_decay, "fused": True}
        self.optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, **adam)
        self.average = {
            name: {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
            for name, model in self.models.items()
        }
        self.settings = {
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "steady": self.steady,
            **self.settings,
        }
        self.started = self.saved = time.monotonic()
        if self.checkpoint.exists():
            self._go_on(trained[0].device)
        self._trim_log()

    def _go_on(self, device: torch.device) -> None:
        state = torch.load(self.checkpoint, map_location=device, weights_only=True)
        began = state.get("settings", {})
        for name, value in self.settings.items():
            if began.get(name, value) != value:  # an older checkpoint may not have heard of it
                raise typer.BadParameter(
                    f"{self.checkpoint} began with {name} {began[name]}, not {value}: go on so, or take another --work."
                )
        for name, model in self.models.items():
            model.load_state_dict(state["models"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step = state["average"], state["step"]
        print(f"{self.stage}: going on from step {self.step}", flush=True)

    def _trim_log(self) -> None:
        """Takes away what was logged after the checkpoint was saved: it comes again."""
        if not self.log.exists():
            return
        with self.log.open(newline="") as log:
            kept = [row for row in csv.reader(log) if row[0] == "step" or int(row[0]) <= self.step]
        with self.log.open("w", newline="") as log:
            csv.writer(log).writerows(kept)
        if len(kept) > 1:
            self.started -= float(kept[-1][1])

    @property
    def checkpoint(self) -> Path:
        return self.work / f"{self.stage}.pt"

    @property
    def log(self) -> Path:
        return self.work / f"{self.stage}.csv"

    def save(self) -> None:
        """Writes the checkpoint."""
        state = {
            "models": {name: model.state_dict() for name, model in self.models.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "settings": dict(self.settings),
        }
        _save(state, self.checkpoint)
        self.saved = time.monotonic()

    def snapshot(self) -> None:
        """Keeps the averaged weights of this step in a file of their own."""
        _save({"average": self.average, "step": self.step}, self.work / snapshot_name(self.stage, self.step))

    def is_due(self, every: int) -> bool:
        """Whether what is done after every so many steps, and at the end, is to be done now."""
        return self.step % every == 0 or self.step == self.steps

    def optimize(self, loss: Tensor, parts: dict[str, float]) -> None:
        """One optimizer step: warm-up, the learning rate steady, then cosine decay; gradients clipped. Logs, and saves every
        two minutes.

        Raises:
            RuntimeError: a gradient is not finite; the checkpoint on disk is from before.
        """
        warmup = min(1.0, (self.step + 1) / 100)
        progress = min(1.0, max(0.0, self.step / self.steps - self.steady) / (1 - self.steady))
        for group in self.optimizer.param_groups:
            group["lr"] = (
                self.learning_rate * group["factor"] * warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        self.optimizer.step()
        self.constrain()
        self.step += 1
        self._follow()
        record = {
            "step": self.step,
            "seconds": round(time.monotonic() - self.started, 1),
            "grad": round(norm.item(), 3),
        }
        record |= {name: round(value, 5) for name, value in parts.items()}
        with self.log.open("a", newline="") as log:
            writer = csv.DictWriter(log, record.keys())
            if log.tell() == 0:
                writer.writeheader()
            writer.writerow(record)
        if self.step % 20 == 0:
            print(self.stage, record, flush=True)
        if time.monotonic() - self.saved > 120 or self.step == self.steps:
            self.save()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The models have the average of weights while this lasts."""
        present = {
            name: {key: tensor.clone() for key, tensor in model.state_dict().items()} for name, model in self.models.items()
        }
        self.take_average()
        yield
        for name, model in self.models.items():
            model.load_state_dict(present[name])

    def take_average(self) -> None:
        """Gives the models the average of weights, at the end."""
        for name, model in self.models.items():
            model.load_state_dict(self.average[name])

    def _follow(self) -> None:
        """Moves the average of weights towards the present ones; early steps count less."""
        kept = min(AVERAGING, (1 + self.step) / (10 + self.step))
        for name, model in self.models.items():
            for key, tensor in model.state_dict().items():
                average = self.average[name][key]
                if tensor.is_floating_point():
                    average.lerp_(tensor, 1 - kept)
                else:
                    average.copy_(tensor)


def _save(state: dict[str, object], path: Path) -> None:
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def snapshot_name(stage: str, step: int) -> str:
    """The file's that holds a stage's averaged weights of `step`."""
    return f"{stage}_{step:06d}.pt"


class Photographs:
    """Photographs held in memory as uint8 RGB, with crops drawn from them and their degraded versions."""

    def __init__(self, folder: Path, least_side: int, least_count: int) -> None:
        """Reads those of a folder whose shorter side has `least_side` pixels; fewer than `least_count` are refused."""
        images = [crop_to_multiple(image, 2 * SCALE) for image in read_pictures(folder)]
        self.images = [image for image in images if min(image.size) >= least_side]
        if len(self.images) < least_count:
            raise typer.BadParameter(
                f"{folder} has {len(self.images)} pictures with sides of {least_side} pixels or more, not {least_count}."
            )
        if len(self.images) < len(images):
            print(f"{len(images) - len(self.images)} pictures smaller than {least_side} pixels are left out", flush=True)

    def split_off(self, count: int) -> Photographs:
        """Takes `count` photographs, spread over all, away and returns them."""
        chosen = set(range(len(self.images) // count // 2, len(self.images), len(self.images) // count)[:count])
        taken = object.__new__(Photographs)
        taken.images = [image for number, image in enumerate(self.images) if number in chosen]
        self.images = [image for number, image in enumerate(self.images) if number not in chosen]
        return taken

    def crops(
        self,
        rng: np.random.Generator,
        size: int,
        batch: int,
        per_image: int,
        prepare: Callable[[Image.Image], Image.Image] = lambda low: low,
    ) -> Iterator[tuple[Tensor, ...]]:
        """Endless batches: high resolution and low resolution, prepared and enlarged by bicubic, `(B, 3, size, size)` in
        -1..1, whether that is plain bicubic `(B,)`, and the index of each crop's photograph `(B,)`."""

        def draw() -> list[tuple[Tensor, Tensor, bool, int]]:
            index = int(rng.integers(len(self.images)))
            high = self.images[index]
            low, plain = low_resolution(high, rng)
            enlarged = prepare(low).resize(high.size, Image.Resampling.BICUBIC)
            return [(*crop_pair(high, enlarged, rng, size), plain, index) for _ in range(per_image)]

        for taken in mixed(draw, rng, batch):
            high_batch, low_batch, *about = zip(*taken, strict=True)
            yield torch.stack(high_batch), torch.stack(low_batch), *map(torch.tensor, about)


def low_resolution(high: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, bool]:
    """A photograph reduced, and whether plainly so; else it goes the real way, once, or twice as in Real-ESRGAN's
    second-order model, each time by half the scale."""
    plain = rng.random() < PLAIN
    return downscale_bicubic(high, SCALE) if plain else _as_in_the_world(high, rng), plain


def _as_in_the_world(high: Image.Image, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.7:
        return degrade(high, rng, SCALE)
    return degrade(degrade(high, rng, 2), rng, SCALE // 2)


Item = TypeVar("Item")


def mixed(draw: Callable[[], list[Item]], rng: np.random.Generator, batch: int) -> Iterator[list[Item]]:
    """Endless batches of what `draw` gives, a few at a time, mixed so that neighbours come apart."""
    buffer: list[Item] = []
    while True:
        while len(buffer) < 8 * batch:
            buffer += draw()
        rng.shuffle(buffer)
        taken, buffer = buffer[:batch], buffer[batch:]
        yield taken


def ahead(items: Iterator[Item], count: int = 4) -> Iterator[Item]:
    """The same items, of which a thread prepares up to `count` while one is in use."""
    pool = ThreadPoolExecutor(1)
    waiting = deque(pool.submit(next, items) for _ in range(count))
    try:
        while True:
            waiting.append(pool.submit(next, items))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def picture_paths(folder: Path) -> list[Path]:
    """All JPEG and PNG pictures of a folder, in order of their names."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise typer.BadParameter(f"no .jpg or .png picture in {folder}")
    return paths


def read_pictures(folder: Path) -> list[Image.Image]:
    """Those of `picture_paths`, as RGB."""
    return [read_picture(path) for path in picture_paths(folder)]


def read_picture(path: Path) -> Image.Image:
    """As RGB."""
    try:
        return Image.open(path).convert("RGB")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read as a picture: {error}") from error


def crop_pair(high: Image.Image, low: Image.Image, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """The same square of both pictures, flipped and turned alike."""
    left, top = (int(rng.integers(side - size + 1)) for side in high.size)
    box = (left, top, left + size, top + size)
    flip, turns = rng.random() < 0.5, int(rng.integers(4))

    def take(image: Image.Image) -> Tensor:
        pixels = torch.rot90(to_tensor(image.crop(box)), turns, dims=(1, 2))
        return pixels.flip(-1) if flip else pixels

    return take(high), take(low)


def to_tensor(image: Image.Image) -> Tensor:
    """`(3, H, W)` in -1..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def training_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it is fast, else nothing."""
    fast = device.type == "cuda" or cpu_is_fastest_in_bfloat16()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def place(module: nn.Module, device: torch.device) -> nn.Module:
    return module.to(device, memory_format=torch.channels_last)


def save_picture(path: Path, *columns: Tensor) -> None:
    """Batches `(B, 3, H, W)` in -1..1 side by side, a row each picture, as a PNG."""
    rows = torch.cat([torch.cat(list(column.cpu()), dim=1) for column in columns], dim=2)
    pixels = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)


def write_model(folder: Path, config: dict, tensors: Mapping[str, Tensor], stem: str = DIFFUSERS_FILE) -> None:
    """`config.json` and the tensors beside it, as `write_tensors` does."""
    write_json(folder / "config.json", config)
    write_tensors(folder / f"{stem}.safetensors", tensors)


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """In float16."""
    save_file({key: tensor.detach().half().contiguous() for key, tensor in tensors.items()}, path)
