"""The noise schedule of the base model: the share of signal at each timestep, from its scheduler config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seesr.errors import WeightsError

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise schedule and prediction type of the base model."""

    alphas_cumprod: Tensor
    """`(num_train_timesteps,)` float32: the cumulative alpha, which is the share of the signal in the variance."""
    prediction_type: PredictionType
    """The UNet predicts the noise, or v = alpha * noise - sigma * x0 (Salimans and Ho, 2022)."""
    final_alpha_cumprod: float
    """Cumulative alpha after the last step: that of timestep 0, or 1."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoiseSchedule:
        """From a diffusers `scheduler_config.json` of any scheduler.

        Raises:
            WeightsError: the prediction type or the beta schedule is not supported, or the betas are missing.
        """
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in ("epsilon", "v_prediction"):
            raise WeightsError(
                f"scheduler_config.json has prediction type {prediction_type!r}; valid: epsilon, v_prediction."
            )
        if config.get("rescale_betas_zero_snr", False):
            raise WeightsError("scheduler_config.json has rescale_betas_zero_snr, which is not supported.")
        alphas_cumprod = torch.cumprod(1 - _betas(config), dim=0)
        final = 1.0 if config.get("set_alpha_to_one", False) else alphas_cumprod[0].item()
        return cls(alphas_cumprod, prediction_type, final)

    def timesteps(self, steps: int) -> list[int]:
        """`steps` timesteps, noisiest first, with `trailing` spacing (Lin et al., WACV 2024): 999 and 499 for two steps."""
        count = len(self.alphas_cumprod)
        return [int(timestep) - 1 for timestep in np.round(np.arange(count, 0, -count / steps))]

    def alpha_cumprod(self, timestep: int | None) -> float:
        """Cumulative alpha at `timestep`, or after the last step if it is None."""
        return self.final_alpha_cumprod if timestep is None else self.alphas_cumprod[timestep].item()

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """The forward process: `latents` with the noise of `timestep`."""
        alpha = self.alpha_cumprod(timestep)
        return alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise

    def x0_and_noise(self, prediction: Tensor, latents: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """(x0, noise) that follow from the UNet's `prediction` for the noisy `latents`."""
        alpha = self.alpha_cumprod(timestep)
        signal, sigma = alpha**0.5, (1 - alpha) ** 0.5
        if self.prediction_type == "epsilon":
            return (latents - sigma * prediction) / signal, prediction
        return signal * latents - sigma * prediction, signal * prediction + sigma * latents


def _betas(config: dict[str, Any]) -> Tensor:
    """Variance of the noise that each timestep adds, `(num_train_timesteps,)`."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float32)
    missing = [name for name in ("beta_start", "beta_end", "beta_schedule") if name not in config]
    if missing:
        raise WeightsError(f"scheduler_config.json lacks {', '.join(missing)}.")
    start, end, count = config["beta_start"], config["beta_end"], config.get("num_train_timesteps", 1000)
    if config["beta_schedule"] == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    if config["beta_schedule"] == "linear":
        return torch.linspace(start, end, count, dtype=torch.float32)
    raise WeightsError(f"scheduler_config.json has beta schedule {config['beta_schedule']!r}; valid: linear, scaled_linear.")
