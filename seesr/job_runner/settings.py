"""How a worker runs jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from seesr.errors import OptionError

MEDIUM_VAE_TILE, SMALL_VAE_TILE = 48, 24
"""Latent pixels, for `medvram` and `lowvram`."""


class WorkerSettings(BaseModel):
    """How a worker runs jobs.

    Raises:
        OptionError: more than one of `lowvram`, `medvram` and `no_optimizations` is set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = None
    """For upscaling; None is as `Upscaler.load`."""
    checkpoint: str | None = None
    """Of jobs that name none; None is as `Generator.load`."""
    safety_checker: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    memory_limit: int | None = None
    """Bytes of the device's memory to use at most."""
    lowvram: bool = False
    """Keep only the running network on the device; small VAE tiles."""
    medvram: bool = False
    """Run the VAE in tiles."""
    no_optimizations: bool = False
    """Never run the VAE in tiles."""
    compiled: bool = False
    data: Path | None = None
    """The data folder, in which models, styles and wildcards are; None is as SEESR_DATA says."""
    seconds: float | None = None
    """Of a job, after which it is ended; None is no limit."""

    @model_validator(mode="after")
    def _one_of_the_flags(self) -> Self:
        if self.lowvram + self.medvram + self.no_optimizations > 1:
            raise OptionError("give one of --lowvram, --medvram and --no-optimizations.")
        return self

    @property
    def vae_tile(self) -> int | None:
        """Side of the VAE's tiles in latent pixels, 0 for none; None leaves it to the memory plan."""
        if self.lowvram or self.medvram:
            return SMALL_VAE_TILE if self.lowvram else MEDIUM_VAE_TILE
        return 0 if self.no_optimizations else None
