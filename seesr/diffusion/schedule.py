"""The noise schedule of a diffusion model: how much signal is left at each timestep, read from the base's own config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from seesr.errors import WeightsError

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """What the samplers need to know of the base model."""

    alphas_cumprod: Tensor
    """`(num_train_timesteps,)` float32: the share of the signal's variance at each timestep."""
    prediction_type: PredictionType
    """What the UNet predicts: the noise, or v = alpha * noise - sigma * x0 (Salimans and Ho, 2022)."""
    final_alpha_cumprod: float
    """The share of the signal after the last step: that of timestep 0, or 1."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoiseSchedule:
        """Of a diffusers `scheduler_config.json`, whichever scheduler it was written for.

        Raises:
            WeightsError: a prediction type or beta schedule that is not known here, or no betas at all.
        """
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in ("epsilon", "v_prediction"):
            raise WeightsError(
                f"scheduler_config.json asks for prediction type {prediction_type!r}; epsilon and v_prediction are known."
            )
        if config.get("rescale_betas_zero_snr", False):
            raise WeightsError("scheduler_config.json asks for betas rescaled to zero signal, which are not known here.")
        alphas_cumprod = torch.cumprod(1 - _betas(config), dim=0)
        final = 1.0 if config.get("set_alpha_to_one", False) else alphas_cumprod[0].item()
        return cls(alphas_cumprod, cast(PredictionType, prediction_type), final)

    def timesteps(self, steps: int) -> list[int]:
        """`steps` timesteps, the noisiest first, with `trailing` spacing (Lin et al., WACV 2024): 999, 499 for two."""
        count = len(self.alphas_cumprod)
        return [int(t) - 1 for t in np.round(np.arange(count, 0, -count / steps))]

    def signal(self, timestep: int | None) -> float:
        """Cumulative alpha at `timestep`; None is after the last step."""
        return self.final_alpha_cumprod if timestep is None else self.alphas_cumprod[timestep].item()

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """The forward process: `latents` as they look at `timestep`."""
        alpha = self.signal(timestep)
        return alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise

    def split(self, prediction: Tensor, latents: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """(x0, noise) that a UNet's `prediction` means at noisy `latents`."""
        alpha = self.signal(timestep)
        signal, sigma = alpha**0.5, (1 - alpha) ** 0.5
        if self.prediction_type == "epsilon":
            return (latents - sigma * prediction) / signal, prediction
        return signal * latents - sigma * prediction, signal * prediction + sigma * latents


def _betas(config: dict[str, Any]) -> Tensor:
    """How much noise each timestep adds, `(num_train_timesteps,)`."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float32)
    lacking = [name for name in ("beta_start", "beta_end", "beta_schedule") if name not in config]
    if lacking:
        raise WeightsError(f"scheduler_config.json lacks {', '.join(lacking)}.")
    start, end, count = config["beta_start"], config["beta_end"], config.get("num_train_timesteps", 1000)
    if config["beta_schedule"] == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    if config["beta_schedule"] == "linear":
        return torch.linspace(start, end, count, dtype=torch.float32)
    raise WeightsError(
        f"scheduler_config.json asks for beta schedule {config['beta_schedule']!r}; linear and scaled_linear are known."
    )
