"""One stage's training run: optimizer, learning rate, checkpoints, log, and the average of weights."""

from __future__ import annotations

import csv
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import typer
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scripts.training.identity_start import is_delicate
from seesr.files import atomic_write

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
    snapshot_every: int | None = None
    """After so many steps the average of weights is kept in a file of its own."""
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
        # No model here has buffers that change; what is not trained stays as it is.
        self._averaged = [
            (self.average[name][key], parameter)
            for name, model in self.models.items()
            for key, parameter in model.named_parameters()
            if parameter.requires_grad
        ]
        self._trim_log()

    def _go_on(self, device: torch.device) -> None:
        state = torch.load(self.checkpoint, map_location=device, weights_only=True)
        began = state["settings"]
        for name in sorted(began.keys() | self.settings.keys()):
            # What an older or a newer script has not heard of is as if it were nothing.
            before, value = (settings.get(name) or None for settings in (began, self.settings))
            if before != value:
                raise typer.BadParameter(
                    f"{self.checkpoint} began with {name} {before}, not {value}: go on so, or take another --work."
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

    def is_due(self, every: int) -> bool:
        """Whether what is done after every so many steps, and at the end, is to be done now."""
        return self.step % every == 0 or self.step == self.steps

    def optimize(self, loss: Tensor, parts: dict[str, Tensor]) -> None:
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
        # All at once: on a GPU each by itself would wait for it.
        grad, *values = torch.stack([part.detach().float() for part in (norm, *parts.values())]).tolist()
        record = {"step": self.step, "seconds": round(time.monotonic() - self.started, 1), "grad": round(grad, 3)}
        record |= {name: round(value, 5) for name, value in zip(parts, values, strict=True)}
        with self.log.open("a", newline="") as log:
            writer = csv.DictWriter(log, record.keys())
            if log.tell() == 0:
                writer.writeheader()
            writer.writerow(record)
        if self.step % 20 == 0:
            print(self.stage, record, flush=True)
        # Before the checkpoint: a run that is killed between both makes the snapshot again.
        if self.snapshot_every and self.step % self.snapshot_every == 0:
            _save({"average": self.average, "step": self.step}, self.work / snapshot_name(self.stage, self.step))
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
        averages, present = zip(*self._averaged, strict=True)
        get_ema_multi_avg_fn(kept)(averages, present, None)


def _save(state: dict[str, object], path: Path) -> None:
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def snapshot_name(stage: str, step: int) -> str:
    """The file's that holds a stage's averaged weights of `step`."""
    return f"{stage}_{step:06d}.pt"


def short_digest(*contents: bytes) -> str:
    """Of a few digits, for the eye too: what tells one setting from others."""
    digits = hashlib.sha256()
    for content in contents:
        digits.update(content)
    return digits.hexdigest()[:12]
